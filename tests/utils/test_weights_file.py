"""Weights files, also untrusted and damaged ones: arrays are read, nothing is executed."""

import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eseg_d2.utils.weights_file import UnreadableWeightsError, read_weights_file

SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WEIGHTS = {
    "model": OrderedDict(weight=torch.arange(300.0), bias=torch.ones(3, dtype=torch.float16)),
    "numpy": {"a": np.arange(6.0).reshape(2, 3), "scalar": np.float32(3), "bool": np.array(True)},
    "iteration": 7,
}


class Calls:
    """An object whose pickle calls a function when it is loaded by an ordinary unpickler."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def write(path, content, **options):
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, protocol=options.get("protocol", 2)))
    else:
        torch.save(content, path, **options)
    return str(path)


@pytest.mark.parametrize("name", ["a.pkl", "a.pth", "old.pth"])
@pytest.mark.parametrize("nested", [False, True])
def test_code_is_not_executed(tmp_path, name, nested):
    canary = tmp_path / "canary"
    options = {"_use_new_zipfile_serialization": False} if name == "old.pth" else {}
    for function, argument, asked in (
        (os.system, f"touch {canary}", r"\w+\.system"),
        (eval, f"open({str(canary)!r}, 'w')", "eval"),
        (subprocess.Popen, ["touch", str(canary)], "Popen"),
        (os.mkdir, str(canary), r"\w+\.mkdir"),
        (np.load, str(canary), r"numpy.*load"),
    ):
        content = Calls(function, argument)
        if nested:
            content = {"model": {"weight": torch.ones(2) if options else 1, "x": [content]}}
        path = write(tmp_path / name, content, **options)
        with pytest.raises(UnreadableWeightsError, match=f"{name} is not read.*{asked}") as error:
            read_weights_file(path)
        assert "weights_only" not in str(error.value)
        assert not canary.exists()


@pytest.mark.parametrize(
    "asked",
    [
        "numpy.testing._private.utils runstring",
        "numpy.core.multiarray fromfile",
        "numpy._core.multiarray fromstring",
        "numpy load",
        "numpy.dtypes os.systemDType",
        "collections namedtuple",
        "builtins getattr",
        "__builtin__ eval",
        "_codecs lookup",
        "torch load",
    ],
)
def test_names_that_look_harmless_are_refused(tmp_path, asked):
    path = tmp_path / "a.pkl"
    path.write_bytes(f"c{asked.replace(' ', chr(10))}\n.".encode())
    with pytest.raises(UnreadableWeightsError, match="a.pkl"):
        read_weights_file(str(path))


@pytest.mark.parametrize("core", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_model_zoo_pickles_are_read(tmp_path, core):
    """Python 2 wrote bytes as strings, and old versions of NumPy other module names."""
    data = pickle.dumps({"conv1_w": WEIGHTS["numpy"]["a"], "s": np.float32(3)}, protocol=2)
    for name in b"numpy._core.multiarray", b"numpy.core.multiarray":
        data = data.replace(name, core)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(data)
    content = read_weights_file(str(path))
    np.testing.assert_array_equal(content["conv1_w"], WEIGHTS["numpy"]["a"])
    assert content["s"] == 3
    # with a str of Python 2
    path.write_bytes(b"\x80\x02}q\x00U\x05n\xe9mexU\x01ws.")
    assert read_weights_file(str(path)) == {"n\xe9mex": "w"}


@pytest.mark.parametrize("protocol", range(1, 6))
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    path = write(tmp_path / "a.pkl", WEIGHTS["numpy"], protocol=protocol)
    content = read_weights_file(path)
    for name, value in WEIGHTS["numpy"].items():
        np.testing.assert_array_equal(content[name], value)


@pytest.mark.parametrize("new", [True, False])
def test_files_of_torch_are_read(tmp_path, new):
    path = write(tmp_path / "a.pth", WEIGHTS, _use_new_zipfile_serialization=new)
    content = read_weights_file(path)
    assert list(content) == list(WEIGHTS) and content["iteration"] == 7
    assert all(torch.equal(content["model"][k], v) for k, v in WEIGHTS["model"].items())
    for name, value in WEIGHTS["numpy"].items():
        np.testing.assert_array_equal(content["numpy"][name], value)


def test_files_without_checksums_are_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        path = write(tmp_path / "a.pth", WEIGHTS)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_weights_file(path)["iteration"] == 7


def test_flipped_bit_in_the_weights_is_detected(tmp_path):
    path = tmp_path / "a.pth"
    write(path, WEIGHTS)
    data = bytearray(path.read_bytes())
    data[data.index(torch.arange(300.0).numpy().tobytes()) + 401] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableWeightsError, match="a.pth.*checksum"):
        read_weights_file(str(path))


def rewrite(path, changed, **options):
    """Write a zip again with some of its parts replaced."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in parts.items():
            archive.writestr(name, changed.get(name, data))


def test_zips_that_pytorch_would_not_write_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    for changed, options, match in (
        ({"a/data/0": bytes(8)}, {}, "300 values of torch.float32 are in 8 bytes"),
        ({"a/byteorder": b"big"}, {}, "another order of bytes"),
        ({}, {"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    ):
        write(path, WEIGHTS)
        rewrite(path, changed, **options)
        with pytest.raises(UnreadableWeightsError, match=f"a.pth cannot be read.*{match}"):
            read_weights_file(str(path))
    write(path, WEIGHTS)
    rewrite(path, {})  # unchanged, the same zip is read
    assert read_weights_file(str(path))["iteration"] == 7


@pytest.mark.parametrize("count", [301, 2**40])
def test_old_file_that_claims_too_many_values_is_refused(tmp_path, count):
    path = tmp_path / "old.pth"
    write(path, {"a": torch.arange(300.0)}, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    claim = b"\x8a\x06" + count.to_bytes(6, "little")
    assert data.count(b"M\x2c\x01") == 2  # in the storage and in the shape
    path.write_bytes(data.replace(b"M\x2c\x01", claim, 1))
    with pytest.raises(UnreadableWeightsError, match="old.pth cannot be read"):
        read_weights_file(str(path))


@pytest.mark.parametrize(
    "content",
    [b"", b"some text\n", b"<html>404</html>", b"PK\x03\x04", bytes(5000), b"\x80\x02}q\x00"],
)
@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".pyth"])
def test_files_of_other_kinds_are_named(tmp_path, content, suffix):
    path = tmp_path / f"other{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnreadableWeightsError, match=f"other{suffix} cannot be read"):
        read_weights_file(str(path))


KINDS = {"a.pkl": {}, "a.pth": {}, "old.pth": {"_use_new_zipfile_serialization": False}}


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory):
    """Return the path and the content of a valid file."""
    path = tmp_path_factory.mktemp("whole") / request.param
    write(path, WEIGHTS["numpy"] if path.suffix == ".pkl" else WEIGHTS, **KINDS[request.param])
    return path, path.read_bytes()


@SETTINGS
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_truncated_files_are_refused(tmp_path, whole, fraction):
    path, data = tmp_path / whole[0].name, whole[1]
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(UnreadableWeightsError, match=f"{path} (cannot be|is not) read"):
        read_weights_file(str(path))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@SETTINGS
@given(data=st.data())
def test_damaged_files_raise_only_the_documented_error(tmp_path, whole, data):
    """They may also be read, as a file without a checksum can hold any number."""
    path, content = tmp_path / whole[0].name, bytearray(whole[1])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read_weights_file(str(path))
    except UnreadableWeightsError as e:
        assert str(path) in str(e)
