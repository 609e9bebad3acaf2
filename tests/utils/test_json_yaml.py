"""Reading json from anywhere, and json that our own runs have written."""

import json

import pytest

from eseg_d2.utils.json_yaml import DuplicateKeyError, read_json, read_json_or_none, write_json


def test_written_json_is_read_back(tmp_path):
    content = {"b": [1, 2.5, None], "a": {"text": "ü"}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert (tmp_path / "a.json").read_text().startswith('{"a"')
    write_json(tmp_path / "a.json", content, sort_keys=False)
    assert (tmp_path / "a.json").read_text().startswith('{"b"')


def test_whole_floats_become_integers_except_in_our_own_files(tmp_path):
    (tmp_path / "a.json").write_text("[1.0, 1.5]")
    assert json.dumps(read_json(tmp_path / "a.json")) == "[1, 1.5]"
    assert json.dumps(read_json_or_none(tmp_path / "a.json")) == "[1.0, 1.5]"


@pytest.mark.parametrize("content", ["", "{", "[" * 200_000])
def test_damaged_files_are_named_or_none(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match="a.json is (not valid json|empty)"):
        read_json(tmp_path / "a.json")
    assert read_json_or_none(tmp_path / "a.json") is None
    assert read_json_or_none(tmp_path / "b.json") is None


def test_duplicate_key_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"id": 1, "id": 2}')
    with pytest.raises(DuplicateKeyError, match="a.json: an object has the key 'id' twice"):
        read_json(tmp_path / "a.json")
