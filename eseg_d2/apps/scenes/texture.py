"""Surfaces and light: noise, paving in perspective, the sky, and the flaws of a photograph."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from .camera import Camera

__all__ = ["Light", "cloud_noise", "ground_texture", "photograph", "sample_light", "sky"]

_TILE = 512
_PIXELS_PER_METRE = 48.0


@dataclass(frozen=True)
class Light:
    """Time of day and weather.

    Attributes:
        zenith, haze: RGB of the upper sky and of the horizon.
        gain: (3,) factors of the camera's colour channels: exposure times the light's colour.
        sun: -1 or 1, the side that shadows fall to.
        reach: how far shadows reach in metres; 0 for an overcast sky.
        shade: share of the light that a full shadow takes away.
        clearness: distance in metres over which 63 % of a colour fades to haze.
        clouds: cloud cover, from 0 (clear) to 1 (covered).
    """

    zenith: np.ndarray
    haze: np.ndarray
    gain: np.ndarray
    sun: int
    reach: float
    shade: float
    clearness: float
    clouds: float


_HOURS = (
    # zenith, haze, gain, reach
    ((92, 146, 214), (206, 222, 234), (1.0, 1.0, 1.0), 0.9),  # noon
    ((122, 158, 206), (240, 214, 182), (1.08, 0.98, 0.86), 2.4),  # low sun
    ((168, 176, 184), (208, 210, 212), (0.9, 0.93, 0.97), 0.0),  # overcast
    ((70, 84, 138), (214, 150, 128), (0.78, 0.72, 0.8), 0.0),  # dusk
)


def sample_light(rng: np.random.Generator) -> Light:
    """Draw a time of day, weather and exposure."""
    zenith, haze, gain, reach = _HOURS[rng.choice(4, p=(0.4, 0.25, 0.22, 0.13))]
    exposure = rng.uniform(0.8, 1.2) * rng.uniform(0.96, 1.04, 3)
    return Light(
        zenith=np.array(zenith) + rng.uniform(-12, 12, 3),
        haze=np.array(haze) + rng.uniform(-12, 12, 3),
        gain=np.array(gain) * exposure,
        sun=int(rng.choice((-1, 1))),
        reach=reach * rng.uniform(0.6, 1.3),
        shade=rng.uniform(0.35, 0.6),
        clearness=rng.uniform(90, 260),
        clouds=rng.uniform(0, 1),
    )


@lru_cache(maxsize=1)
def _tiles() -> dict[str, np.ndarray]:
    """Return seamless float32 (512, 512) textures of mean 0 and range -1..1, about, by material."""
    rng = np.random.default_rng(2203)
    grain = rng.standard_normal((_TILE, _TILE)).astype(np.float32)
    wrap = np.pad(grain, 32, mode="wrap")

    def soft(sigma: float) -> np.ndarray:
        blurred = cv2.GaussianBlur(wrap, (0, 0), sigma)[32:-32, 32:-32]
        return blurred / blurred.std()

    rows, columns = np.mgrid[:_TILE, :_TILE]

    def joints(height: int, width: int) -> np.ndarray:
        course = rows // height
        shifted = columns + (course % 2) * (width // 2)
        line = (rows % height < 3) | (shifted % width < 3)
        stone = rng.uniform(-0.35, 0.35, (_TILE // height, _TILE // width))
        tone = stone[course % len(stone), shifted // width % stone.shape[1]]
        return np.where(line, -0.8, tone).astype(np.float32)

    return {
        "grain": np.clip(grain / 2.5, -1, 1),
        "asphalt": 0.2 * soft(1.2) + 0.08 * soft(9),
        "concrete": 0.08 * soft(1.2) + 0.12 * soft(9) + 0.4 * np.minimum(joints(128, 128), 0),
        "pavers": 0.6 * joints(32, 32) + 0.08 * soft(1.2),
        "cobbles": 0.8 * joints(16, 16) + 0.1 * soft(2),
        "grass": 0.4 * soft(1.5) + 0.25 * soft(7),
    }


def ground_texture(
    camera: Camera, rng: np.random.Generator, label_ids: np.ndarray, materials: dict[int, str]
) -> np.ndarray:
    """Return the brightness factors of the ground, in perspective.

    Args:
        camera: the view.
        rng: shifts the textures.
        label_ids: (H, W) uint8 of the bare ground.
        materials: texture name by label id.

    Returns:
        float32 (H - top, W) around 1, for the rows below the horizon, top = ceil(horizon).
    """
    top = int(np.ceil(camera.horizon))
    rows = np.arange(top, camera.height) + 0.5
    z = np.minimum(camera.row_distance(rows), 120.0)
    columns = (np.arange(camera.width) + 0.5 - camera.center) / camera.focal
    x = camera.x + z[:, None] * columns
    shift = rng.uniform(0, _TILE, 2)
    map_x = (x * _PIXELS_PER_METRE + shift[0]).astype(np.float32) % _TILE
    map_y = (z * _PIXELS_PER_METRE + shift[1]).astype(np.float32) % _TILE
    map_y = np.ascontiguousarray(np.broadcast_to(map_y[:, None], map_x.shape))
    footprint = z**2 / (camera.focal * camera.y) * _PIXELS_PER_METRE  # tile pixels per image row
    fade = np.minimum(1.0, 8.0 / footprint).astype(np.float32)[:, None]
    factor = np.ones(map_x.shape, np.float32)
    for material in sorted(set(materials.values())):
        seen = cv2.remap(_tiles()[material], map_x, map_y, cv2.INTER_LINEAR, None, cv2.BORDER_WRAP)
        ids = [label_id for label_id, name in materials.items() if name == material]
        table = np.zeros(256, np.uint8)
        table[ids] = 1
        cv2.copyTo(1 + 0.5 * fade * seen, cv2.LUT(label_ids[top:], table), factor)
    return factor


def cloud_noise(
    rng: np.random.Generator, height: int, width: int, cells: int, octaves: int
) -> np.ndarray:
    """Return smooth noise, float32 (height, width), about -1..1, with ``cells`` lumps a column."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows = cells << octave
        shape = rows + 1, max(2, rows * width // height + 1)
        grid = rng.uniform(-1, 1, shape).astype(np.float32)
        total += 0.55**octave * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return total / 1.4


def sky(rng: np.random.Generator, camera: Camera, light: Light) -> np.ndarray:
    """Return the sky as float32 (H, W, 3) RGB; below the horizon it is plain haze."""
    height, width = camera.height, camera.width
    low = np.clip(np.arange(height) / camera.horizon, 0, 1)[:, None] ** 1.3
    column = light.zenith * (1 - low) + light.haze * low
    image = np.repeat(column[:, None].astype(np.float32), width, 1)
    top = max(int(camera.horizon), 2)
    noise = cloud_noise(rng, top, width, 2, 4)
    cover = np.clip((noise + 1.4 * light.clouds - 0.9) * 1.6, 0, 0.9)[..., None]
    white = (0.5 * light.haze + 0.5 * 250 * np.ones(3)).astype(np.float32)
    image[:top] += (white - image[:top]) * cover
    return image


def photograph(
    rng: np.random.Generator,
    image: np.ndarray,
    light: Light,
    roughness: np.ndarray,
) -> np.ndarray:
    """Turn the drawing into a photograph: surfaces, exposure, contrast, blur, sensor noise.

    Args:
        rng: draws the camera's settings.
        image: (H, W, 3) uint8 RGB drawing.
        light: its gain is applied.
        roughness: (H, W) float32, how much the brightness of a pixel's surface varies.

    Returns:
        uint8 (H, W, 3) RGB.
    """
    height, width = image.shape[:2]
    lumps = cloud_noise(rng, height, width, 24, 3)
    surface = 1 + roughness * lumps
    result = image.astype(np.float32) * surface[..., None]
    contrast = rng.uniform(0.88, 1.15)
    gain = (light.gain * contrast).astype(np.float32)
    result = result * gain + np.float32(118 * (1 - contrast))
    sigma = rng.uniform(0.0, 0.9) * height / 512 + rng.uniform(0.0, 0.35)
    if sigma > 0.25:
        result = cv2.GaussianBlur(result, (0, 0), sigma)
    rows = (rng.integers(_TILE) + np.arange(height)) % _TILE
    columns = (rng.integers(_TILE) + np.arange(width)) % _TILE
    grain = _tiles()["grain"][rows][:, columns]
    result += np.float32(rng.uniform(4, 14)) * grain[..., None]
    return np.clip(result, 0, 255).astype(np.uint8)
