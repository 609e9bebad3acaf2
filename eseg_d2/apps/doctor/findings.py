"""What can be wrong with a panoptic data set, and how to repair it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["KINDS", "SEVERITIES", "Finding", "Kind", "sort_findings"]

SEVERITIES = ("error", "warning", "note")
"""Breaks training or scores; probably a mistake, but trains; good to know."""


class Kind(NamedTuple):
    """How bad a kind of finding is, and what to do about it."""

    severity: str
    fix: str


_REMOVE_ENTRY = "Keep one of them and remove the others from the json."
_GET_AGAIN = "Copy or download the file again, or remove its image from the json."
_WRITE_JSON_AGAIN = "Write the json again from the pngs."

KINDS = {
    # the json as a whole
    "json-missing": Kind("error", "Check the path; datasets/README.md says where files belong."),
    "json-invalid": Kind("error", "Copy or download the json again, or repair its syntax."),
    "json-duplicate-key": Kind("error", "Keep one of the two; parsers silently take the last one."),
    "json-structure": Kind("error", "See https://cocodataset.org/#format-data (panoptic)."),
    "folder-missing": Kind("error", "Check the path; datasets/README.md says where files belong."),
    # categories
    "category-incomplete": Kind("error", "Give each category an id, a name and isthing (0 or 1)."),
    "category-duplicate-id": Kind("error", "Give each category an id of its own."),
    "category-duplicate-name": Kind("warning", "Give each category a name of its own."),
    "category-not-registered": Kind("error", "Register the data set with the json's categories."),
    # images and annotations
    "image-incomplete": Kind("error", "Add what is missing to the entry in the json."),
    "annotation-incomplete": Kind("error", "Add what is missing to the entry in the json."),
    "image-duplicate-id": Kind("error", _REMOVE_ENTRY),
    "image-duplicate-file-name": Kind("error", _REMOVE_ENTRY),
    "annotation-duplicate": Kind("error", _REMOVE_ENTRY),
    "annotation-duplicate-file-name": Kind("error", "Give each annotation a png of its own."),
    "image-without-annotation": Kind("warning", "Annotate the image, or remove it from the json."),
    "annotation-without-image": Kind("error", "Add the image to the json, or correct image_id."),
    "path-outside-root": Kind("error", "Use paths relative to the folder, and without '..'."),
    "path-unknown": Kind("error", "Name image ids and files as the data set's format requires."),
    # segments_info
    "segment-incomplete": Kind("error", "Give each segment an integer id and category_id."),
    "segment-id-range": Kind("error", "Use ids from 1 to 16777215: R + 256 G + 65536 B."),
    "segment-duplicate-id": Kind("error", "Give each segment of an image an id of its own."),
    "unknown-category": Kind("error", "Correct category_id, or add the category to the json."),
    "iscrowd-missing": Kind("warning", "Add iscrowd, 0 or 1; without it, 0 is assumed."),
    "iscrowd-invalid": Kind("error", "Set iscrowd to 0 or 1."),
    "crowd-stuff": Kind("warning", "Set iscrowd to 0: only things can be a crowd."),
    "stuff-in-parts": Kind("warning", "Draw a stuff class as one segment; PQ counts each part."),
    "area-missing": Kind("warning", f"panopticapi needs it. {_WRITE_JSON_AGAIN}"),
    "bbox-missing": Kind("warning", _WRITE_JSON_AGAIN),
    # files
    "image-missing": Kind("error", _GET_AGAIN),
    "image-zero-bytes": Kind("error", _GET_AGAIN),
    "image-unreadable": Kind("error", _GET_AGAIN),
    "png-missing": Kind("error", _GET_AGAIN),
    "png-zero-bytes": Kind("error", _GET_AGAIN),
    "png-unreadable": Kind("error", _GET_AGAIN),
    "png-format": Kind("error", "Save the segment ids as an RGB png of 8 bits a channel."),
    "png-bgr": Kind("error", "Write the pngs again, red first: cv2.imwrite expects blue first."),
    "size-mismatch": Kind("error", "Bring the image and the png to the same size."),
    "json-size": Kind("error", "Correct width and height in the json."),
    # pixels
    "unlisted-segment": Kind("error", "List them in segments_info, or set the pixels to 0 (void)."),
    "empty-segment": Kind("error", "Remove them from segments_info, or draw them in the png."),
    "all-void": Kind("error", "Check that this is the right png: none of its segments is there."),
    "void-as-white": Kind("warning", "Write void as 0, 0, 0: only eseg_d2 treats white as void."),
    "no-segments": Kind("warning", "Annotate the image, or remove it from the json."),
    "wrong-area": Kind("error", f"The json may describe another png. {_WRITE_JSON_AGAIN}"),
    "wrong-bbox": Kind("warning", _WRITE_JSON_AGAIN),
    # the data set as a whole
    "duplicate-image": Kind("warning", "Keep one of them: identical images count twice."),
    "image-in-train-and-val": Kind("warning", "Remove it from one: scores would be too good."),
    "class-only-in-val": Kind("warning", "Move images of it to train: it cannot be learnt."),
    "class-crowd-only": Kind("warning", "Outline single objects in train, or make it stuff."),
    "class-absent": Kind("note", "Nothing, if this is intended: these classes are never learnt."),
    "categories-differ": Kind("error", "Give train and val the same categories in the same order."),
    "image-not-listed": Kind("note", "Nothing, if this is intended: only listed images are used."),
    "internal": Kind("error", "Look at this file by hand; please report it if it is sound."),
}
"""Every kind of finding by its code."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: one of :data:`KINDS`.
        file: path of the file that is wrong, if it is a single file.
        id: id of the segment, category (dataset id) or image that the message is about.
        message: what was found, and what was expected.
    """

    code: str
    dataset: str
    file: str | None
    id: int | str | None
    message: str

    @property
    def severity(self) -> str:
        """One of :data:`SEVERITIES`."""
        return KINDS[self.code].severity

    @property
    def fix(self) -> str:
        """How to repair it."""
        return KINDS[self.code].fix

    def as_dict(self) -> dict:
        """Return the finding as a json can hold it."""
        keys = ("severity", "code", "dataset", "file", "id", "message", "fix")
        return {key: getattr(self, key) for key in keys}


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity, then by code as in :data:`KINDS`; the sort is stable."""
    codes = list(KINDS)
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), codes.index(f.code)))
