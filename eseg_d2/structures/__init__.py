"""Plain structures that know neither files nor models."""
