"""From logits at a low resolution to a label map, without ever holding all logits at full size."""

import math

import torch
import torch.nn.functional as F

__all__ = ["label_map"]

STRIP_PIXELS = 2**17  # output pixels at a time


def label_map(
    logits: torch.Tensor,
    *,
    stride: int,
    image_size: tuple[int, int],
    output_size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """The argmax over classes of the logits as Detectron2 brings them to the output's size.

    That is: upsampled (bilinear) by the stride, cropped to the image, and, where the output has
    another size, resized (bilinear) to that. It is done for strips of output rows, in float32 at
    least: half precision can neither number the rows of large images nor tell close logits apart.

    Args:
        logits: (B, num_classes, h, w), floating point.
        stride: pixels of the image per cell, a power of two.
        image_size: (H, W) of the image as the model saw it; at most (h, w) times the stride.
        output_size: (H, W) of the result; default ``image_size``.

    Returns:
        (B, H, W) int64 class indices. They equal those of the plain way; where that resizes, but
        for pixels whose best classes differ by rounding.
    """
    output_size = output_size or image_size
    rows = max(STRIP_PIXELS // output_size[1], 1)
    strips = []
    for top in range(0, output_size[0], rows):
        bottom = min(top + rows, output_size[0])
        # not argmax, which is four times as slow on a CPU
        strips.append(_rows(logits, stride, image_size, output_size, top, bottom).max(1).indices)
    return torch.cat(strips, 1)


def _rows(logits, stride, image_size, output_size, top, bottom):
    """Rows top .. bottom of the resized logits."""
    if output_size == image_size:
        return _image_rows(logits, stride, image_size, top, bottom)
    # the source rows of PyTorch's bilinear interpolation without aligned corners
    scale = image_size[0] / output_size[0]
    source = torch.arange(top, bottom, device=logits.device, dtype=_precision(logits))
    source = ((source + 0.5) * scale - 0.5).clamp(0, image_size[0] - 1)
    upper = source.floor().long()
    # computed here, since reading them from a GPU would wait for it; one row more for rounding
    first = max(math.floor((top + 0.5) * scale - 0.5) - 1, 0)
    last = min(math.floor((bottom - 0.5) * scale - 0.5) + 2, image_size[0] - 1)
    rows = _image_rows(logits, stride, image_size, first, last + 1)
    rows = F.interpolate(
        rows, size=(rows.shape[2], output_size[1]), mode="bilinear", align_corners=False
    )
    above = rows[:, :, upper - first]
    below = rows[:, :, (upper + 1).clamp(max=last) - first]
    return torch.lerp(above, below, (source - upper).view(-1, 1))


def _image_rows(logits, stride, image_size, top, bottom):
    """Rows top .. bottom of the logits upsampled by the stride and cropped to the image.

    Two cells of margin give each row the neighbours that it has in the whole map.
    """
    first = max(top // stride - 2, 0)
    last = min(-(-bottom // stride) + 2, logits.shape[2])
    part = logits[:, :, first:last].to(_precision(logits))
    part = F.interpolate(part, scale_factor=stride, mode="bilinear", align_corners=False)
    return part[:, :, top - first * stride : bottom - first * stride, : image_size[1]]


def _precision(logits: torch.Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)
