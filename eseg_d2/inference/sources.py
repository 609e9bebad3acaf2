"""From what a user names (files, globs, folders) to the images and videos to run."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eseg_d2.data.images import IMAGE_SUFFIXES

__all__ = ["VIDEO_SUFFIXES", "Source", "find_sources", "printable"]

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp"}
)
_LONGEST_NAME = 200  # bytes; most file systems take 255 with what is added


@dataclass(frozen=True)
class Source:
    """One image or video.

    Attributes:
        path: as the user named it.
        name: what its outputs' names begin with; no two sources of a run share one.
        is_video: by its suffix.
    """

    path: str
    name: str
    is_video: bool


def find_sources(patterns: Sequence[str], videos: Iterable[str] = ()) -> list[Source]:
    """
    Args:
        patterns: files, globs (``**`` goes into folders) and folders. A name that is there is
            taken as it is, even with characters of globs. Of a folder the images and videos
            directly in it are taken, by their suffixes; names that begin with a dot are not.
        videos: files that are videos, whatever their suffix.

    Raises:
        FileNotFoundError: nothing matches a pattern, or there is no image or video at all.
    """
    paths = dict.fromkeys(path for pattern in patterns for path in _expand(pattern))
    is_video = {path: Path(path).suffix.lower() in VIDEO_SUFFIXES for path in paths}
    is_video.update(dict.fromkeys(videos, True))
    if not is_video:
        raise FileNotFoundError(
            f"there is no image or video in {', '.join(patterns)}, by the suffixes "
            f"{' '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))}. Folders in it are not looked "
            "into; a glob does: 'FOLDER/**/*.png'"
        )
    names = _unique_names(list(is_video))
    return [
        Source(path, name, video)
        for (path, video), name in zip(is_video.items(), names, strict=True)
    ]


def _expand(pattern: str) -> list[str]:
    pattern = os.path.expanduser(pattern)
    if os.path.lexists(pattern):
        return _in_folder(pattern) if os.path.isdir(pattern) else [pattern]
    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise FileNotFoundError(f"no file, folder or match of a glob: {pattern}")
    files = []
    for match in matches:
        files += _in_folder(match) if os.path.isdir(match) and "**" not in pattern else [match]
    return [f for f in files if _has_known_suffix(f)] or files


def _in_folder(folder: str) -> list[str]:
    names = sorted(os.listdir(folder))
    return [os.path.join(folder, n) for n in names if n[0] != "." and _has_known_suffix(n)]


def _has_known_suffix(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _unique_names(paths: list[str]) -> list[str]:
    """The stem; where several share it, with the folder's name, then the suffix, then a number."""
    split = [Path(os.path.abspath(path)) for path in paths]
    stems = [p.stem for p in split]
    in_folders = [f"{p.parent.name}_{p.stem}" for p in split]
    with_suffix = [f"{p.parent.name}_{p.stem}_{p.suffix[1:]}" for p in split]
    names = [_file_name(stem) for stem in stems]
    for longer in in_folders, with_suffix:
        count = Counter(name.casefold() for name in names)
        names = [
            _file_name(other) if count[name.casefold()] > 1 else name
            for name, other in zip(names, longer, strict=True)
        ]
    taken: set[str] = set()
    for i, name in enumerate(names):
        number, unique = 1, name
        while unique.casefold() in taken:
            number += 1
            unique = f"{name}_{number}"
        taken.add(unique.casefold())
        names[i] = unique
    return names


def _file_name(text: str) -> str:
    """Without characters that cannot be printed, and short enough for a file's name."""
    text = "".join(c if c.isprintable() else "_" for c in text)
    return text.encode()[:_LONGEST_NAME].decode(errors="ignore")


def printable(text: str) -> str:
    """Text with its control characters written out: names of files can hold any."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
