"""Maps of the context that a pixel takes from higher levels."""

import numpy as np
import pytest
import torch
from commands import python
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from PIL import Image
from torch import nn

from eseg_d2.engine import load_config
from eseg_d2.modeling.sem_seg.rsp_head import RSPHead
from eseg_d2.visualization.relation import context_maps, find_rsp, image_relation_weights


def uniform_weights(height, width, k=3):
    """Return weights that are equal for all cells of a region inside the map."""
    h, w = -(-height // 2), -(-width // 2)
    inside = nn.functional.unfold(torch.ones(1, 1, h, w), k, padding=k // 2).view(k * k, h, w)
    cells = inside / inside.sum(0)
    pixels = cells.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width]
    return pixels[None, None].repeat(1, 2, 1, 1, 1)


@pytest.mark.parametrize("position", [(0, 0), (4, 5), (8, 10)])
def test_maps_are_distributions_around_the_parent_cell(position):
    maps = context_maps([uniform_weights(9, 11), uniform_weights(5, 6)], position)
    assert [m.shape for m in maps] == [(5, 6), (3, 3)]
    assert all(m.sum() == pytest.approx(1) and m.min() >= 0 for m in maps)
    rows, columns = np.nonzero(maps[0])
    assert abs(rows - position[0] // 2).max() <= 1 and abs(columns - position[1] // 2).max() <= 1


def test_second_map_is_the_product_of_both_relations():
    """The expected map is computed by loops over the cells."""
    generator = torch.Generator().manual_seed(0)
    low, high = (
        torch.rand(1, 2, 9, *size, generator=generator) * (uniform_weights(*size) > 0)
        for size in ((8, 8), (4, 4))
    )
    low, high = (x / x.sum(2, keepdim=True) for x in (low, high))
    expected = np.zeros((2, 2))
    for i in range(3):
        for j in range(3):
            y, x = 5 // 2 + i - 1, 2 // 2 + j - 1
            if not (0 <= y < 4 and 0 <= x < 4):
                continue
            for m in range(3):
                for n in range(3):
                    yy, xx = y // 2 + m - 1, x // 2 + n - 1
                    if 0 <= yy < 2 and 0 <= xx < 2:
                        first = low[0, :, 3 * i + j, 5, 2].mean()
                        expected[yy, xx] += float(first * high[0, :, 3 * m + n, y, x].mean())
    np.testing.assert_allclose(context_maps([low, high], (5, 2))[1], expected, atol=1e-6)


class Predictor:
    """Runs an RSP head on random levels, whatever the image."""

    aug = ResizeShortestEdge(37, 100)

    def __init__(self):
        shapes = {f"p{i}": ShapeSpec(channels=16, stride=2**i) for i in (2, 3, 4)}
        self.model = nn.Module()
        self.model.sem_seg_head = RSPHead(shapes, num_classes=5, channels=16, num_heads=4).eval()

    def __call__(self, image):
        sizes = {"p2": (10, 13), "p3": (5, 7), "p4": (3, 4)}
        self.model.sem_seg_head.layers({k: torch.randn(2, 16, *v) for k, v in sizes.items()})


def test_relation_weights_are_distributions_by_level_the_lowest_first():
    weights, seen = image_relation_weights(Predictor(), np.zeros((74, 102, 3), np.uint8))
    assert [(name, level.shape) for name, level in weights.items()] == [
        ("p2", (2, 4, 9, 10, 13)),
        ("p3", (2, 4, 9, 5, 7)),
    ]
    for level in weights.values():
        torch.testing.assert_close(level.sum(2), torch.ones_like(level.sum(2)))
    assert seen == (37, 51)


def test_model_without_rsp_is_refused():
    model = nn.Module()
    model.sem_seg_head = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match="no RSP head"):
        find_rsp(model)


def test_command_draws_maps_of_semantic_and_panoptic_models(root, tmp_path):
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 100, 3), np.uint8)).save(image)
    for name in "rsp_semantic_R50", "rsp_panoptic_R18_cityscapes":
        config = root / "configs" / "scenes" / f"{name}.yaml"
        weights = tmp_path / f"{name}.pth"
        torch.save({"model": build_model(load_config(str(config), [])).state_dict()}, weights)
        picture = tmp_path / f"{name}.png"
        command = ["demo/draw_relation.py", "--config-file", config, "--input", image]
        command += ["--output", picture, "--pixel"]
        done = python(*command, 59, 99, "MODEL.WEIGHTS", weights, cwd=root)
        assert done.returncode == 0, done.stderr
        assert np.asarray(Image.open(picture)).std() > 0
    outside = python(*command, 60, 0, "MODEL.WEIGHTS", weights, cwd=root)
    assert outside.returncode == 1 and "rows are 0 .. 59" in outside.stderr
