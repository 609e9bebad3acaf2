"""Harmful pickles that Python's or PyTorch's unpickler would accept."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from eseg_d2.utils import plain_pickle
from eseg_d2.utils.plain_pickle import RefusedPickleError, read_pickle
from eseg_d2.utils.weights_file import UnreadableWeightsError, read_weights_file

# The functions below return pieces of pickles as bytes


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def call(name, *arguments):
    """Call a function by its name, with arguments that are instructions."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def number(value):
    data = pickle.encode_long(value)
    return b"\x8b" + struct.pack("<I", len(data)) + data


def nested(depth=60):
    """Nest pairs whose two parts are the same pair: 5 bytes per level stand for 2**60 values."""
    return b"K\x01" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(depth))


def array(dtype, shape, data, order=b"\x89", build=b""):
    kind = call("numpy dtype", dtype, b"\x89", b"\x88") + build
    made = call("numpy.core.multiarray _reconstruct", b"cnumpy\nndarray\n", b"K\x00\x85", b"C\x01b")
    return made + b"(K\x01" + shape + kind + order + data + b"tb"


def state(*values):
    return b"(K\x03" + b"".join(values) + b"tb"


F4, SHAPE, DATA = text("f4"), b"K\x02\x85", b"C\x08" + bytes(8)
PLAIN = state(text("<"), b"NNN", number(-1), number(-1), b"K\x00")


def described(*values):
    """Build an array whose dtype has a given state."""
    return array(F4, SHAPE, DATA, build=state(text("<"), *values))


HARMFUL = {
    "fields": described(b"N", text("a") + b"\x85}" + b"K\x10K\x01K\x10"),
    "subarray": described(F4 + SHAPE + b"\x86NN", b"K\x10K\x01K\x00"),
    "size": described(b"NNN", number(2**30) + b"K\x08K\x00"),
    "flags": described(b"NNN", number(-1) + number(-1) + b"K\x3f"),
    "objects": array(text("O"), SHAPE, b"(K\x01K\x02l", build=PLAIN),
    "object-bytes": array(text("O8"), b"K\x01\x85", DATA, build=PLAIN),
    "void": array(text("V8"), b"K\x01\x85", DATA),
    "dates": array(text("M8"), b"K\x01\x85", DATA),
    "records": array(text("f4,f4"), b"K\x01\x85", DATA),
    "dtype-of-tuples": array(nested(), SHAPE, DATA),
    "too-few-bytes": array(F4, number(2**40) + b"\x85", DATA, build=PLAIN),
    "overflow": array(F4, number(2**62) + number(2**62) + b"K\x00\x87", b"C\x00", build=PLAIN),
    "negative": array(F4, number(-2) + number(-1) + b"\x86", DATA, build=PLAIN),
    "many-axes": array(F4, b"(" + b"K\x01" * 5000 + b"t", b"C\x04" + bytes(4), build=PLAIN),
    "large-axes": array(F4, b"(" + (b"\x8a\x80" + b"\x7f" * 128) * 30 + b"t", DATA, build=PLAIN),
    "state-of-a-name": b"cnumpy\nndarray\n}b",
    "state-of-a-list": b"]}b",
    "array-without-content": call("numpy.core.multiarray _reconstruct", b"NNN"),
    "bytearray": call("__builtin__ bytearray", number(10**12)),
    "bytes": call("__builtin__ bytes", number(10**12)),
    "int": call("__builtin__ int", text("9" * 100_000)),
    "list": call("__builtin__ list", text("9" * 100_000)),
    "codec": call("_codecs encode", text("a" * 100_000), text("punycode")),
    "factory": call("collections defaultdict", b"c__builtin__\nlist\n"),
    "key-of-tuples": b"}" + nested() + b"Ns",
    "dict-of-a-tuple": call("collections OrderedDict", nested() + b"N\x86\x85"),
    "shape-of-tuples": array(F4, nested(), DATA, build=PLAIN),
    "size-of-tuples": call("torch Size", nested() + b"\x85"),
    "set-of-tuples": call("__builtin__ set", nested() + b"\x85"),
    "new-set": b"\x8f(" + nested() + b"\x90",
    "frozenset": b"(" + nested() + b"\x91",
    "colliding-keys": b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(99)) + b"u",
    "values-of-tuples": b"}" + text("model") + nested() + b"s",
    "deep": b"]" * 100_000 + b"a" * 99_999,
    "endless": b"]q\x00h\x00a",
    "copies": b"X" + struct.pack("<I", 10**6) + bytes(10**6) + b"q\x00"
    + b"".join([call("_codecs encode", b"h\x00", text("latin1"))] * 100),
    "dicts": b"](" + b"K\x01K\x02\x86" * 5_000 + b"eq\x00"
    + call("collections OrderedDict", b"h\x00") * 2_000,
    "marks": b"(" * 100_000,
    "long-number": b"I" + b"9" * 2000 + b"\n",
    "longer-than-the-file": b"\x8e" + struct.pack("<Q", 2**40) + b"a",
    "frame-memo": b"]r\xff\xff\xff\xff0h\x00",
    "extension": b"\x82\x01",
    "instance": b"(i__builtin__\nlist\n",
    "new-object": b"c__builtin__\nlist\n)\x81",
    "persistent": b"K\x01Q",
    "storage": b"c__builtin__\ngetattr\n",
}  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
@pytest.mark.parametrize("inside", [False, True])
def test_harmful_pickles_are_refused(tmp_path, name, inside):
    """The pickle may be a file of its own, or inside a file of torch.save."""
    data = b"\x80\x02" + HARMFUL[name] + b"."
    path = tmp_path / ("a.pth" if inside else "a.pkl")
    if inside:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", data)
    else:
        path.write_bytes(data)
    with pytest.raises(UnreadableWeightsError) as error:
        read_weights_file(str(path))
    assert str(path) in str(error.value) and len(str(error.value)) < 600


def test_number_of_instructions_is_bounded(monkeypatch):
    monkeypatch.setattr(plain_pickle, "_MAX_INSTRUCTIONS", 1000)
    data = b"](" + b"N" * 1000 + b"e."
    with pytest.raises(RefusedPickleError, match="more than 1000 instructions"):
        read_pickle(io.BytesIO(data), len(data))


def test_pieces_of_the_harmful_pickles_are_valid():
    """Each harmful pickle is therefore refused for what its name says."""
    data = array(F4, SHAPE, struct.pack("<BB2f", 67, 8, 3, 4), build=PLAIN) + b"."
    np.testing.assert_array_equal(read_pickle(io.BytesIO(data), len(data)), np.float32([3, 4]))
    data = b"}" + text("a") + call("_codecs encode", text("b"), text("latin1")) + b"s."
    assert read_pickle(io.BytesIO(data), len(data)) == {"a": b"b"}
    data = array(F4, b"K\x00K\x03\x86", b"C\x00", build=PLAIN) + b"."
    assert read_pickle(io.BytesIO(data), len(data)).shape == (0, 3)
    data = nested(depth=2) + b"."
    assert read_pickle(io.BytesIO(data), len(data)) == ((1, 1), (1, 1))
