"""Binary masks of objects, each kept inside a box of its own instead of in a map of the image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

__all__ = ["MaskCrops"]

PASTE_PIXELS = 2**18  # sampled at a time


class MaskCrops:
    """The masks of N objects in one image; a field that Detectron2's ``Instances`` can hold.

    Attributes:
        image_size: (H, W) in pixels.
        crops: for each object the top row, the left column and the (h, w) bool pixels from there
            on; outside them the object has none.
    """

    def __init__(self, crops: Sequence[tuple[int, int, torch.Tensor]], image_size: Sequence[int]):
        self.crops = list(crops)
        self.image_size: tuple[int, int] = (image_size[0], image_size[1])

    @classmethod
    def from_tensor(cls, masks: torch.Tensor) -> "MaskCrops":
        """Take (N, H, W) bool masks as they are."""
        return cls([(0, 0, mask) for mask in masks], masks.shape[-2:])

    @classmethod
    def paste(
        cls,
        masks: torch.Tensor,
        boxes: torch.Tensor,
        image_size: tuple[int, int],
    ) -> "MaskCrops":
        """Resize the masks of boxes as Detectron2's ``paste_masks_in_image`` does on a CPU.

        The result equals that function's bit for bit, without pixels outside of the boxes. The
        boxes are brought to the CPU in one transfer.

        Args:
            masks: (N, M, M) floating point, 0 .. 1.
            boxes: (N, 4) x0, y0, x1, y1 in pixels, within the image.
            image_size: (H, W).
        """
        first, last = boxes[:, :2].floor() - 1, boxes[:, 2:].ceil() + 1
        crops = []
        for mask, box, extent in zip(
            masks.float(), boxes, torch.cat([first, last], 1).int().tolist(), strict=True
        ):
            left, top = max(extent[0], 0), max(extent[1], 0)
            right, bottom = min(extent[2], image_size[1]), min(extent[3], image_size[0])
            x = _positions(left, right, box[0], box[2])
            y = _positions(top, bottom, box[1], box[3])
            rows = y.split(max(PASTE_PIXELS // max(len(x), 1), 1))
            strips = [_sample(mask, x, part) >= 0.5 for part in rows]
            crops.append((top, left, torch.cat(strips)))
        return cls(crops, image_size)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, chosen: slice | torch.Tensor) -> "MaskCrops":
        """Return some of the masks: a slice, or an index tensor as other fields take it."""
        if isinstance(chosen, torch.Tensor):
            chosen = chosen.cpu()
        numbers = torch.arange(len(self))[chosen].tolist()
        return MaskCrops([self.crops[n] for n in numbers], self.image_size)

    def to(self, *args, **kwargs) -> "MaskCrops":
        """Move the pixels as ``torch.Tensor.to`` does."""
        crops = [(top, left, mask.to(*args, **kwargs)) for top, left, mask in self.crops]
        return MaskCrops(crops, self.image_size)

    def window(self, index: int, image: torch.Tensor) -> torch.Tensor:
        """Return the view of an (H, W) map that an object's crop covers."""
        top, left, mask = self.crops[index]
        return image[top : top + mask.shape[0], left : left + mask.shape[1]]

    def full(self, index: int) -> torch.Tensor:
        """Return the (H, W) bool mask of one object."""
        image = self.crops[index][2].new_zeros(self.image_size)
        self.window(index, image).copy_(self.crops[index][2])
        return image

    def tensor(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Return all masks as one (N, H, W) bool tensor."""
        masks = torch.zeros(len(self), *self.image_size, dtype=torch.bool, device=device)
        for index, (_, _, mask) in enumerate(self.crops):
            self.window(index, masks[index]).copy_(mask)
        return masks


def _positions(first: int, last: int, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Where the centres of pixels lie between two sides of a box, which are at -1 and 1."""
    centres = torch.arange(first, last, dtype=torch.float32, device=start.device) + 0.5
    return (centres - start) / (end - start) * 2 - 1


def _sample(mask: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], 2)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
