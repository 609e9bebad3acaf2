"""Inference on images and videos with numpy results, for ``demo/demo.py`` and your own code."""

from eseg_d2.data.images import read_image
from eseg_d2.inference.prediction import InstanceResults, Prediction
from eseg_d2.inference.predictor import Predictor

__all__ = ["InstanceResults", "Prediction", "Predictor", "read_image"]
