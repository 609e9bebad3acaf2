"""The built-in data set: procedural street scenes of a toy town, with exact panoptic labels."""

from .generate import generate_street_scenes
from .render import Scene, SceneObject, render_scene

__all__ = ["Scene", "SceneObject", "generate_street_scenes", "render_scene"]
