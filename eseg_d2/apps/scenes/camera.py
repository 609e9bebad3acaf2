"""A pinhole camera that looks along the street."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Camera"]


@dataclass(frozen=True)
class Camera:
    """Looks along +Z, horizontally. World: X to the right, Y up, Z ahead, in metres.

    Attributes:
        height: image height in pixels.
        width: image width in pixels.
        focal: focal length in pixels.
        horizon: image row of the horizon, pixels.
        center: image column of the vanishing point, pixels.
        x: lateral position in the street, metres; 0 is the middle of the carriageway.
        y: height above the ground, metres.
    """

    height: int
    width: int
    focal: float
    horizon: float
    center: float
    x: float
    y: float

    @classmethod
    def sample(cls, rng: np.random.Generator, height: int, width: int, x: float) -> "Camera":
        """Draw a camera at the lateral position ``x``; lengths in pixels scale with the height."""
        return cls(
            height=height,
            width=width,
            focal=rng.uniform(1.0, 1.3) * height,
            horizon=rng.uniform(0.36, 0.48) * height,
            center=width * (0.5 + rng.uniform(-0.15, 0.15)),
            x=x,
            y=rng.uniform(1.5, 2.1),
        )

    @property
    def near(self) -> float:
        """Distance in metres, less a margin, at which the ground leaves the image's bottom."""
        return 0.85 * self.focal * self.y / (self.height - self.horizon)

    def scale(self, z: float) -> float:
        """Return the pixels per metre at distance ``z``."""
        return self.focal / z

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project world points (..., 3) with Z > 0 to pixels (..., 2) as (column, row)."""
        points = np.asarray(points, float)
        scale = self.focal / points[..., 2]
        u = self.center + (points[..., 0] - self.x) * scale
        v = self.horizon + (self.y - points[..., 1]) * scale
        return np.stack([u, v], -1)

    def foot(self, x: float, z: float) -> np.ndarray:
        """Return the pixel (column, row) of the ground point (x, 0, z)."""
        return self.project(np.array([x, 0.0, z]))

    def row_distance(self, rows: np.ndarray) -> np.ndarray:
        """Return the distance in metres of the ground seen in image rows below the horizon."""
        return self.focal * self.y / np.maximum(rows - self.horizon, 1e-3 * self.height)
