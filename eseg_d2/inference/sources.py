"""Find the images and videos that a user means by files, globs and folders."""

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
_LONGEST_NAME = 200  # bytes; with its ending it must stay below the 255 of most file systems


@dataclass(frozen=True)
class Source:
    """One image or video.

    Attributes:
        path: path as the user gave it.
        name: how the names of its outputs begin; no two sources of a run share it.
        is_video: whether it is a video rather than an image.
    """

    path: str
    name: str
    is_video: bool


def find_sources(patterns: Sequence[str], videos: Iterable[str] = ()) -> list[Source]:
    """Return the images and videos that match patterns.

    Args:
        patterns: files, globs (``**`` descends into folders) and folders. A name that exists is
            taken literally, even if it has characters of globs. A folder stands for the images
            and videos directly in it, by their suffixes, except names that begin with a dot.
        videos: files that are videos, whatever their suffix.

    Raises:
        FileNotFoundError: nothing matches a pattern, or there are no images or videos at all.
    """
    paths = dict.fromkeys(path for pattern in patterns for path in _expand(pattern))
    is_video = {path: Path(path).suffix.lower() in VIDEO_SUFFIXES for path in paths}
    is_video.update(dict.fromkeys(videos, True))
    if not is_video:
        raise FileNotFoundError(
            f"there is no image or video in {', '.join(patterns)} with one of the suffixes "
            f"{' '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))}. Subfolders are not searched; "
            "for these use a glob: 'FOLDER/**/*.png'"
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
    """Return the stems; shared ones get the folder's name, then also the suffix or a number."""
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
    """Return the text without unprintable characters, and short enough for a file name."""
    text = "".join(c if c.isprintable() else "_" for c in text)
    return text.encode()[:_LONGEST_NAME].decode(errors="ignore")


def printable(text: str) -> str:
    """Return the text with its control characters escaped: file names can contain any."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
