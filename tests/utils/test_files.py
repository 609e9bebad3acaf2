"""Pipes, devices, sockets and folders in the place of files are refused without blocking."""

import pytest
from special_files import KINDS, REFUSED, make

from eseg_d2.apps.convert.categories import read_categories
from eseg_d2.apps.convert.input_files import image_size, read_label_png
from eseg_d2.data.datasets.panoptic_format import register_own
from eseg_d2.data.images import read_image
from eseg_d2.data.panoptic_png import read_panoptic_png
from eseg_d2.inference import read_image as read_any_image
from eseg_d2.utils.files import read_file, replacing, write_atomically
from eseg_d2.utils.json_yaml import load_yaml, read_json
from eseg_d2.utils.weights_file import read_weights_file

READERS = {
    "read_file": read_file,
    "json": read_json,
    "yaml": load_yaml,
    "own": lambda path: register_own(
        [{"name": "a", "images": "b", "panoptic_png": "c", "panoptic_json": str(path)}]
    ),
    "categories": read_categories,
    "label": read_label_png,
    "size": image_size,
    "weights": lambda path: read_weights_file(str(path)),
    "png": lambda path: read_panoptic_png(str(path)),
    "image": lambda path: read_image(str(path), "RGB"),
    "any-image": read_any_image,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_what_is_not_a_regular_file(tmp_path, kind, reader):
    path = tmp_path / "a.json"
    make(kind, path)
    with pytest.raises(ValueError, match=f"a.json.*{REFUSED}"):
        READERS[reader](path)


@pytest.mark.parametrize("name", ["loop", "gone", "zero\0byte"])
def test_names_that_cannot_be_opened_are_named(tmp_path, name):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises((ValueError, FileNotFoundError), match=name.partition("\0")[0]):
        read_file(tmp_path / name)


def test_files_above_the_size_limit_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"123")
    assert read_file(tmp_path / "a", max_bytes=3) == b"123"
    with pytest.raises(ValueError, match="a has 3 bytes; the limit is 2"):
        read_file(tmp_path / "a", max_bytes=2)


def test_failed_replacement_keeps_the_old_file(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with replacing(path) as target:
        target.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as target:
        target.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_folder_deleted_during_an_atomic_write_is_created_again(tmp_path):
    folder = tmp_path / "run"

    def write(file):
        file.write(b"content")
        if not (tmp_path / "away").exists():
            folder.rename(tmp_path / "away")

    write_atomically(str(folder / "file"), write)
    assert (folder / "file").read_bytes() == b"content"
