"""Configs are looked up in the working directory first, then in the package."""

import pytest

from eseg_d2.config import find_config


def test_existing_file_is_preferred_to_the_one_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs/rsp_panoptic_R50.yaml"
    own.write_text("SEED: 1\n")
    assert find_config("configs/rsp_panoptic_R50.yaml") == "configs/rsp_panoptic_R50.yaml"
    assert find_config(str(own)) == str(own)


def test_files_of_the_package_are_found_from_any_folder(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    for path in (root / "configs").rglob("*.yaml"):
        name = str(path.relative_to(root))
        with open(find_config(name)) as file:
            assert file.read() == path.read_text()


@pytest.mark.parametrize("name", ["rsp_panoptic_R50.yaml", "configs/none.yaml", "config/x.yaml"])
def test_missing_config_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no config file '{name}' in {tmp_path}"):
        find_config(name)
