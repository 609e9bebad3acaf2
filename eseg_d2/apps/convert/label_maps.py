"""Convert label pngs and instance pngs to the COCO panoptic format."""

from functools import partial
from pathlib import Path

import numpy as np

from eseg_d2.data.images import DATASET_SUFFIXES
from eseg_d2.utils.errors import listing

from .categories import category_index, check_ignored, read_categories
from .dataset import Conversion, Item, Segments, check_output, require_partners, write_dataset
from .input_files import find_files, read_label_png

__all__ = ["convert_label_maps"]

_INSTANCE_BITS = 16


def convert_label_maps(
    *,
    images: Path,
    labels: Path,
    categories: Path,
    output: Path,
    instances: Path | None = None,
    ignore: tuple[int, ...] = (255,),
    workers: int | None = None,
) -> Conversion:
    """Make ``panoptic/*.png`` and ``panoptic.json`` from label maps and instance maps.

    Files belong together if their paths in their folders differ only in the suffix:
    ``images/city/a.jpg``, ``labels/city/a.png``, ``instances/city/a.png``.

    How pixels become segments:

    - label of a stuff class: one segment for each class, whatever the instance map says;
    - label of a thing class and instance n > 0: one segment for each pair (label, n). Instances
      may be numbered within a class or within the image;
    - label of a thing class and instance 0: objects that cannot be told apart, one segment for each
      class with ``iscrowd`` 1, like Cityscapes' groups;
    - ignored label: void.

    Args:
        images: folder of jpgs or pngs.
        labels: folder of pngs whose pixels are dataset ids, read by
            :func:`~eseg_d2.apps.convert.input_files.read_label_png`.
        categories: file; see :func:`~eseg_d2.apps.convert.categories.read_categories`. Without
            ``instances`` all are stuff, and ``isthing`` is optional.
        output: folder for the results.
        instances: folder of pngs whose pixels are instance numbers, 0 for none. Required if a
            category is a thing, and not allowed otherwise.
        ignore: labels of pixels without a class.
        workers: number of processes; by default one for each CPU.

    Raises:
        ValueError, FileNotFoundError: the inputs are not as described; the message names the file
            and the fix.
        FileExistsError: ``output`` holds something else.
    """
    classes = read_categories(categories, default_isthing=0 if instances is None else None)
    _check_classes(classes, categories, instances, ignore)
    folders = [folder for folder in (images, labels, instances) if folder is not None]
    check_output(output, folders)
    pictures = find_files(images, DATASET_SUFFIXES)
    maps = [find_files(folder, (".png",)) for folder in folders[1:]]
    for folder, found in zip(folders[1:], maps, strict=True):
        require_partners(pictures, found, folder)
        require_partners(found, pictures, images)
    items = [
        Item(
            image_id=number,
            image=image,
            file_name=image.relative_to(images).as_posix(),
            label=maps[0][key],
            sources=tuple(found[key] for found in maps),
        )
        for number, (key, image) in enumerate(pictures.items(), start=1)
    ]
    return write_dataset(
        items,
        partial(_segments, categories=classes, ignore=ignore),
        output=output,
        categories=classes,
        settings=["label-maps", ignore],
        workers=workers,
    )


def _check_classes(
    categories: list[dict], path: Path, instances: Path | None, ignore: tuple[int, ...]
) -> None:
    things = [c["name"] for c in categories if c["isthing"]]
    if things and instances is None:
        raise ValueError(
            f"{path} has things ({listing(things)}), but there is no folder of instance pngs. "
            "Give one (--instances), or set isthing to 0 to treat these classes as stuff."
        )
    if instances is not None and not things:
        raise ValueError(
            f"no category in {path} is a thing, so {instances} has no effect. Set isthing to 1 for "
            "classes whose objects are to be told apart, or leave out --instances."
        )
    check_ignored(ignore, categories, path)


def _segments(item: Item, *, categories: list[dict], ignore: tuple[int, ...]) -> Segments:
    path, *instance_path = item.sources
    labels = read_label_png(path)
    index = category_index(labels, [c["id"] for c in categories], ignore, path)
    isthing = np.array([c["isthing"] for c in categories], dtype=bool)
    pair = index << _INSTANCE_BITS
    for other in instance_path:
        instances = read_label_png(other)
        if instances.shape != labels.shape:
            raise ValueError(
                f"{other} is {instances.shape[0]}x{instances.shape[1]} pixels (height x width), "
                f"but {path} is {labels.shape[0]}x{labels.shape[1]}; they must have the same size"
            )
        pair |= np.where(isthing[index] & (index >= 0), instances, 0)
    present = np.unique(pair)
    present = present[present >= 0]
    segments = [
        {
            "category_id": categories[p >> _INSTANCE_BITS]["id"],
            "iscrowd": int(isthing[p >> _INSTANCE_BITS] and p % (1 << _INSTANCE_BITS) == 0),
        }
        for p in present.tolist()
    ]
    # void is below all of them, so it becomes 0
    return Segments(np.searchsorted(present, pair, side="right"), segments)
