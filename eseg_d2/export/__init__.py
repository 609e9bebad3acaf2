"""Models as files that run without Detectron2."""
