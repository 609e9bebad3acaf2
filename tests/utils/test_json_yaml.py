"""Json that anyone may have written, and json of a run of ours."""

import json

import pytest

from eseg_d2.utils.json_yaml import DuplicateKeyError, read_json, read_json_or_none, write_json


def test_what_was_written_is_read(tmp_path):
    content = {"b": [1, 2.5, None], "a": {"text": "ü"}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert (tmp_path / "a.json").read_text().startswith('{"a"')
    write_json(tmp_path / "a.json", content, sort_keys=False)
    assert (tmp_path / "a.json").read_text().startswith('{"b"')


def test_whole_floats_of_others_are_integers_and_ours_stay(tmp_path):
    (tmp_path / "a.json").write_text("[1.0, 1.5]")
    assert json.dumps(read_json(tmp_path / "a.json")) == "[1, 1.5]"
    assert json.dumps(read_json_or_none(tmp_path / "a.json")) == "[1.0, 1.5]"


@pytest.mark.parametrize("content", ["", "{", "[" * 200_000])
def test_damaged_files(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match="a.json is (not valid json|empty)"):
        read_json(tmp_path / "a.json")
    assert read_json_or_none(tmp_path / "a.json") is None
    assert read_json_or_none(tmp_path / "b.json") is None


def test_a_key_that_is_there_twice(tmp_path):
    (tmp_path / "a.json").write_text('{"id": 1, "id": 2}')
    with pytest.raises(DuplicateKeyError, match="a.json: an object has the key 'id' twice"):
        read_json(tmp_path / "a.json")
