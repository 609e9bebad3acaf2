"""Find images that are there more than once."""

from collections.abc import Sequence

from eseg_d2.apps.doctor.entries import Record
from eseg_d2.apps.doctor.findings import Finding
from eseg_d2.apps.doctor.sources import Source

__all__ = ["find_duplicates"]


def find_duplicates(
    sources: Sequence[Source], records: Sequence[Record], digests: Sequence[bytes]
) -> list[Finding]:
    """Images of equal bytes within a data set, and in train and val.

    Args:
        sources: the data sets.
        records: the images.
        digests: of their bytes; empty where there are none.

    Returns:
        One finding for each image that repeats an earlier one; across data sets it is about the
        one in val.
    """
    roles = {source.name: source.role for source in sources}
    first: dict[tuple[str, bytes], Record] = {}
    in_train: dict[bytes, Record] = {}
    findings = []
    for record, digest in zip(records, digests, strict=True):
        if not digest:
            continue
        if roles[record.dataset] == "train":
            in_train.setdefault(digest, record)
        other = first.setdefault((record.dataset, digest), record)
        if other is not record:
            findings.append(_finding("duplicate-image", record, other))
    for (dataset, digest), record in first.items():
        if roles[dataset] == "val" and digest in in_train:
            findings.append(_finding("image-in-train-and-val", record, in_train[digest]))
    return findings


def _finding(code: str, record: Record, other: Record) -> Finding:
    path = record.image_file
    message = f"{path}: image {record.image_id!r} has the bytes of {other.image_file}"
    return Finding(code, record.dataset, path, record.image_id, message)
