"""Find images on the disk that no json lists."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.apps.doctor.sources import Source
from eseg_d2.data.pixels import IMAGE_SUFFIXES
from eseg_d2.utils.text import listing

__all__ = ["find_unlisted"]

_ABOUT_IMAGES = {
    *("image-incomplete", "image-duplicate-id", "image-duplicate-file-name", "image-missing"),
    *("image-unreadable", "annotation-without-image", "path-outside-root", "path-unknown"),
}
"""With these findings it is not known, or already told, which images the json should list."""


def find_unlisted(
    image_files: Mapping[Source, Sequence[str]], findings: Iterable[Finding]
) -> list[Finding]:
    """Find the images in the folders of data sets that none of these data sets lists.

    Args:
        image_files: the images that each data set lists.
        findings: what else is wrong.

    Returns:
        At most one finding for each data set.
    """
    unclear = {finding.dataset for finding in findings if finding.code in _ABOUT_IMAGES}
    listed = {os.path.normpath(path) for paths in image_files.values() for path in paths}
    pngs = {os.path.normpath(source.panoptic_root) for source in image_files}
    found, told = [], set()
    for source, paths in image_files.items():
        folder = os.path.normpath(source.image_root)
        if not paths or folder in told or source.name in unclear:
            continue
        told.add(folder)
        others = [path for path in _images(folder, pngs) if path not in listed]
        if others:
            names = listing(os.path.relpath(path, folder) for path in sorted(others))
            message = f"{folder} holds {len(others)} images that the json does not list: {names}"
            found.append(Finding("image-not-listed", source.name, folder, None, message))
    return found


def _images(folder: str, pngs: set[str]) -> Iterator[str]:
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if os.path.join(parent, name) not in pngs]
        for name in names:
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                yield os.path.join(parent, name)
