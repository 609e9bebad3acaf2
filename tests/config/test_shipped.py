"""Configurations are found beside the caller, then in the package."""

import pytest

from eseg_d2.config import find_config


def test_file_that_is_there_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs/rsp_panoptic_R50.yaml"
    own.write_text("SEED: 1\n")
    assert find_config("configs/rsp_panoptic_R50.yaml") == "configs/rsp_panoptic_R50.yaml"
    assert find_config(str(own)) == str(own)


def test_file_of_the_package_is_found_in_any_folder(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    for path in (root / "configs").rglob("*.yaml"):
        name = str(path.relative_to(root))
        with open(find_config(name)) as file:
            assert file.read() == path.read_text()


@pytest.mark.parametrize("name", ["rsp_panoptic_R50.yaml", "configs/none.yaml", "config/x.yaml"])
def test_what_is_nowhere_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no config file '{name}' in {tmp_path}"):
        find_config(name)
