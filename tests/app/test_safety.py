import os
import time

import pytest

from eseg_d2.app.safety import Limits, is_loopback, remove_old, uploaded_file


@pytest.fixture
def folder(tmp_path):
    """With two uploads, one of them old."""
    for name, age in ("new", 0), ("old", 1000):
        path = tmp_path / name / "image.png"
        path.parent.mkdir()
        path.write_bytes(bytes(100))
        for changed in path, path.parent:
            os.utime(changed, (time.time() - age,) * 2)
    return tmp_path


def test_old_uploads_are_removed_with_their_folders(folder):
    assert remove_old(folder) == 100
    assert remove_old(folder) == 100  # now also the folder, which the removal had touched
    assert (folder / "new/image.png").exists() and not (folder / "old/image.png").exists()
    assert remove_old(folder, -1) == 0
    assert remove_old(folder, -1) == 0
    assert not list(folder.iterdir())


def test_a_link_is_removed_and_not_what_it_leads_to(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "a").write_text("a")
    (folder / "link").symlink_to(outside)
    remove_old(folder, -1)
    assert (outside / "a").exists() and not (folder / "link").is_symlink()


def test_uploaded_file(folder):
    path = folder / "new/image.png"
    assert uploaded_file(folder, str(path)) == path
    for other in f"{path}/", str(path.parent), str(folder / "new/../old/image.png"), "image.png":
        if os.path.normpath(other) != str(path):
            with pytest.raises(ValueError, match="no file that you uploaded"):
                uploaded_file(folder, other)


@pytest.mark.parametrize("wrong", [{"max_upload": 0}, {"max_pixels": -1}, {"waiting": 0}])
def test_limits(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*expected 1 or more"):
        Limits(**wrong)


def test_is_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "127.1.2.3")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.1.4", "::", "", "localhost.evil.org")))
