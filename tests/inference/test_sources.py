"""Finding the images and videos that a command names, and naming their results."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eseg_d2.inference.sources import _unique_names, find_sources, printable


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def test_files_globs_and_folders_are_found(tmp_path):
    touch(tmp_path, "f/a.jpg", "f/b.PNG", "f/c.mp4", "f/notes.txt", "f/.hidden.png", "f/deep/d.jpg")
    touch(tmp_path, "odd.xyz")
    sources = find_sources([f"{tmp_path}/f", f"{tmp_path}/odd.xyz"])
    assert [os.path.basename(s.path) for s in sources] == ["a.jpg", "b.PNG", "c.mp4", "odd.xyz"]
    assert [s.is_video for s in sources] == [False, False, True, False]
    assert [s.name for s in find_sources([f"{tmp_path}/**/*.jpg"])] == ["a", "d"]
    assert len(find_sources([f"{tmp_path}/f/a.jpg", f"{tmp_path}/f/*.jpg"])) == 1
    assert find_sources([], [f"{tmp_path}/odd.xyz"])[0].is_video


def test_existing_name_is_not_treated_as_a_glob(tmp_path):
    touch(tmp_path, "[1].jpg", "1.jpg")
    (source,) = find_sources([f"{tmp_path}/[1].jpg"])
    assert source.path.endswith("[1].jpg")


def test_missing_sources_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file, folder or match of a glob: .*\*\.jpg"):
        find_sources([f"{tmp_path}/*.jpg"])
    touch(tmp_path, "f/notes.txt")
    with pytest.raises(FileNotFoundError, match="no image or video in .*f"):
        find_sources([f"{tmp_path}/f"])


def test_equal_names_are_made_unique():
    assert _unique_names(["x/a.jpg", "y/a.jpg", "b.jpg"]) == ["x_a", "y_a", "b"]
    assert _unique_names(["x/a.jpg", "x/a.png"]) == ["x_a_jpg", "x_a_png"]
    assert _unique_names(["p/x/a.jpg", "q/x/a.jpg"]) == ["x_a_jpg", "x_a_jpg_2"]
    assert _unique_names(["x/A.jpg", "y/a.jpg"]) == ["x_A", "y_a"]


@given(st.lists(st.text(st.characters(exclude_characters="/\0"), min_size=1), unique=True))
def test_names_are_unique_short_and_printable(texts):
    names = _unique_names([f"folder/{text}.jpg" for text in texts])
    assert len({name.casefold() for name in names}) == len(texts)
    assert all(name.isprintable() and len(name.encode()) < 220 for name in names)


def test_control_characters_are_escaped():
    assert printable("a\x1b[31mb\udcff") == "a\\x1b[31mb\\udcff"
