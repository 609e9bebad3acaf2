"""Export models to files that run without Detectron2."""
