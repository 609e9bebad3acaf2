"""From logits at a low resolution to a label map, without ever holding all logits at full size."""

import torch
import torch.nn.functional as F

__all__ = ["label_map"]

STRIP_PIXELS = 2**15  # output pixels at a time: few enough for a cache


def label_map(
    logits: torch.Tensor,
    *,
    stride: int,
    image_size: tuple[int, int],
    output_size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Return the argmax over classes of the logits as Detectron2 brings them to the output's size.

    That is: upsampled (bilinear) by the stride, cropped to the image, and, where the output has
    another size, resized (bilinear) to that. Both steps are linear and separable: here the columns
    are resized first, then, for a strip of output rows at a time, each row is a weighted sum of the
    few rows of cells that it depends on. It is done in float32 at least: half precision can
    neither number the rows of large images nor tell close logits apart.

    Args:
        logits: (B, num_classes, h, w), floating point.
        stride: pixels of the image per cell, a power of two.
        image_size: (H, W) of the image as the model saw it; at most (h, w) times the stride.
        output_size: (H, W) of the result; default ``image_size``.

    Returns:
        (B, H, W) class indices, uint8 (int64 if there are more than 256 classes). They equal those
        of the plain way, but for pixels whose best classes differ by rounding.
    """
    height, width = output_size or image_size
    batch, count, length = logits.shape[:3]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    cells = logits.permute(2, 0, 1, 3).flatten(0, 2)
    cells = _resize_lines(cells, stride, image_size[1], width).reshape(length, -1)
    identity = torch.eye(length, dtype=logits.dtype)
    weights = _resize_lines(identity, stride, image_size[0], height).T
    strips, scale = [], image_size[0] / height / stride  # cells for each row of the output
    lines = max(STRIP_PIXELS // width, 1)
    for top, rows in zip(range(0, height, lines), weights.split(lines), strict=True):
        # the cells that these rows depend on, and some more, whose weights are 0
        first = max(int(top * scale) - 2, 0)
        last = min(int((top + len(rows)) * scale) + 3, length)
        rows = rows[:, first:last].to(logits.device) @ cells[first:last]
        strips.append(_best_class(rows.view(-1, batch, count, width)))
    return torch.cat(strips).transpose(0, 1)


def _resize_lines(lines: torch.Tensor, stride: int, length: int, target: int) -> torch.Tensor:
    """(N, cells) to (N, target): upsampled by the stride, cropped to ``length``, resized."""
    lines = F.interpolate(lines[None], scale_factor=stride, mode="linear", align_corners=False)
    lines = lines[..., :length]
    if target != length:
        lines = F.interpolate(lines, target, mode="linear", align_corners=False)
    return lines[0]


def _best_class(logits: torch.Tensor) -> torch.Tensor:
    """(n, B, C, W) to (n, B, W): the first class that has the highest logit; changes its argument.

    It has the highest rank. (On a CPU argmax takes fifty times as long, as it does not vectorise.)
    """
    count = logits.shape[2]
    ranks = torch.arange(count, 0, -1, dtype=logits.dtype, device=logits.device)
    rank = logits.eq_(logits.amax(2, keepdim=True)).mul_(ranks[:, None]).amax(2)
    # where a logit is not a number, none equals the highest
    return (count - rank.clamp_(min=1)).to(torch.uint8 if count <= 256 else torch.int64)
