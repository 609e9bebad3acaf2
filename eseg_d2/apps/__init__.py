"""Applications built on the core, each of which could be taken away."""
