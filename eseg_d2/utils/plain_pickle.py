"""Pickles of arrays, tensors and plain containers, by an interpreter that runs nothing of theirs.

A pickle is a program. Python's unpickler lets it import and call; even a list of permitted names is
not enough, since ``numpy.dtype`` alone can be brought to read and write out of bounds. So here
Python's :mod:`pickletools` only splits the file into instructions. Those that plain data need are
carried out, a name of the file is a key of the table ``_CALLS``, and arrays and tensors are made
from their checked shape, type and bytes.
"""

import math
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch

__all__ = ["STORAGES", "Global", "RefusedPickleError", "read_pickle"]

_MAX_INSTRUCTIONS = 2**20  # a checkpoint has about 25 a tensor
_MAX_DEPTH = 32
_MAX_VALUES = 2**20
_LONGEST_LINE = 1024  # of a name in the protocols below 4
_LARGEST_KEY = 2**31  # larger integers can be chosen to share a hash
_NUMBERS = {"?", "b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))}
_NUMBERS |= {"f2", "f4", "f8", "c8", "c16"}
_LONGEST_AXIS = 2**40
_SIZED = str | bytes | bytearray | dict | list | tuple
_DTYPE_STATE = (None, None, None, -1, -1, 0)  # no fields, no own sizes, no flags
_STORED = {"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16"}
_STORED |= {"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8"}
_STORED |= {"Bool": "bool", "ComplexFloat": "complex64", "ComplexDouble": "complex128"}
# PyTorch's kinds of storage, by the names that its files have
STORAGES = {f"torch.{kind}Storage": getattr(torch, name) for kind, name in _STORED.items()}
STORAGES["torch.storage.UntypedStorage"] = torch.uint8


class RefusedPickleError(ValueError):
    """A pickle asks for more than data."""


def _text(value: Any) -> str:
    """Return a text of the file. What else it holds is neither compared, hashed nor printed here:
    tuples that share their parts take forever."""
    if type(value) is not str:
        raise RefusedPickleError(f"it holds a {type(value).__name__}, expected a text")
    return value


class Global:
    """A name that a pickle asks for. It stands for nothing but itself."""

    def __init__(self, name: str):
        self.name = name


class _Dtype:
    """What a pickle says of the type of an array's numbers."""

    def __init__(self, code: str, *_flags):
        if _text(code) not in _NUMBERS:
            raise RefusedPickleError(f"it holds an array of the type {code:.20}, not of numbers")
        self.dtype = np.dtype(code)

    def build(self, state: tuple) -> None:
        version, order, *rest = state
        if version != 3 or order not in ("<", ">", "=", "|") or tuple(rest) != _DTYPE_STATE:
            raise RefusedPickleError("it holds an array of a type with fields or flags of its own")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array of which a pickle gives the content later."""

    def __init__(self, *_kind):
        self.array: np.ndarray | None = None

    def build(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, data = state
        self.array = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: bytes | str, dtype: _Dtype, shape: tuple, order: str, axes=None) -> np.ndarray:
    if isinstance(data, str):  # of Python 2
        data = data.encode("latin-1")
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _Dtype):
        raise RefusedPickleError("it holds an array of objects, not of numbers")
    if not isinstance(shape, tuple) or len(shape) > _MAX_DEPTH:
        raise RefusedPickleError("it holds an array of too many dimensions")
    if not all(type(n) is int and 0 <= n < _LONGEST_AXIS for n in shape):
        raise RefusedPickleError("it holds an array whose shape does not fit its bytes")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise RefusedPickleError(
            f"it holds an array of the shape {shape} and type {dtype.dtype} in {len(data)} bytes"
        )
    order, axes = ("C", axes) if _text(order) == "K" else (order, None)
    source = np.ndarray(shape, dtype.dtype, buffer=data, order=order)  # type: ignore[arg-type]
    array = source.copy(order="K")
    return array.transpose(axes) if axes else array


def _scalar(dtype: _Dtype, data: bytes | str) -> Any:
    return _array(data, dtype, (), "C")[()]


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes in the way in which the protocols below 3 write them."""
    if _text(encoding) not in ("latin1", "latin-1"):
        raise RefusedPickleError(f"it asks for _codecs.encode to {encoding:.20}")
    return _text(text).encode("latin-1")


def _dict(items: dict | list | None = None) -> dict:
    if isinstance(items, list):
        return _update({}, [value for key, value in items for value in (key, value)])
    if items is not None and not isinstance(items, dict):
        raise RefusedPickleError(f"it makes a dict of a {type(items).__name__}")
    return dict(items or {})


def _update(target: dict, keys_and_values: list) -> dict:
    if not isinstance(target, dict):
        raise RefusedPickleError(f"it puts items into a {type(target).__name__}")
    for key, value in zip(keys_and_values[::2], keys_and_values[1::2], strict=True):
        # Anything else may take forever to hash, or to compare
        if not (type(key) is str or (type(key) is int and abs(key) < _LARGEST_KEY)):
            raise RefusedPickleError(
                f"it holds a dict with a key of type {type(key).__name__}; expected texts and "
                f"integers below {_LARGEST_KEY}"
            )
        target[key] = value
    return target


def _tensor(storage: torch.Tensor, offset: int, size: tuple, stride: tuple, *_) -> torch.Tensor:
    if not isinstance(storage, torch.Tensor):
        raise RefusedPickleError("it holds a tensor without a storage")
    tensor = storage.as_strided(size, stride, offset)  # which checks the bounds
    if tensor.numel() > storage.numel():
        raise RefusedPickleError(f"it holds a tensor of {tensor.numel()} values in fewer bytes")
    return tensor


def _typed_tensor(storage, offset, size, stride, _requires_grad, _hooks, dtype, *_) -> torch.Tensor:
    if not isinstance(dtype, torch.dtype):
        raise RefusedPickleError("it holds a tensor without a type")
    return _tensor(storage.view(dtype), offset, size, stride)


def _size(size: tuple) -> tuple:
    if not isinstance(size, tuple):
        raise RefusedPickleError("it holds a torch.Size that is no tuple")
    return size


_CALLS: dict[str, Callable] = {
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "_codecs.encode": _encode,
    "builtins.bytes": lambda: b"",
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
}
_NAMES = {*_CALLS, *STORAGES, "numpy.ndarray"}


def _named(module: str, name: str) -> Any:
    module = {"__builtin__": "builtins"}.get(module, module.replace("numpy._core", "numpy.core"))
    full = f"{module}.{name}"
    if module == "torch" and isinstance(vars(torch).get(name), torch.dtype):
        return vars(torch)[name]
    if full not in _NAMES:
        raise RefusedPickleError(f"it asks for {full:.100}")
    return Global(full)


class _Stream:
    """A file of which no more is asked for than there is, so that no room is made in vain."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._left = file, size

    def read(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise EOFError("it ends too early")
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline(_LONGEST_LINE)
        self._left -= len(line)
        return line


class _Interpreter:
    """Carries out the instructions of one pickle."""

    def __init__(self, load_storage: Callable[[tuple], torch.Tensor] | None, most: int):
        self.left = most  # bytes and items that calls may be given
        self.stack: list = []
        self.outer: list[list] = []  # stacks below the marks
        self.memo: dict[int, Any] = {}
        self.load_storage = load_storage

    def run(self, stream: _Stream) -> Any:
        operations = pickletools.genops(stream)  # type: ignore[arg-type]
        for count, (opcode, argument, _) in enumerate(operations):
            if count == _MAX_INSTRUCTIONS:
                raise RefusedPickleError(f"it has more than {_MAX_INSTRUCTIONS} instructions")
            if opcode.name in _PUSH_ARGUMENT:
                self.stack.append(argument)
            elif opcode.name in _PUSH_NEW:
                self.stack.append(_PUSH_NEW[opcode.name]())
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise RefusedPickleError(
                    f"it has the instruction {opcode.name}, for objects or of the old protocol 0"
                )
        return self.stack.pop()

    def mark(self, _) -> None:
        if len(self.outer) > 2 * _MAX_DEPTH:
            raise RefusedPickleError(f"it is nested deeper than {_MAX_DEPTH}")
        self.outer.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def long_tuple(self, _) -> None:
        items = self.pop_mark()
        self.stack.append(tuple(items))

    def short_tuple(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def append(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise RefusedPickleError(f"it appends to a {type(target).__name__}")
        target.extend(items)

    def set_items(self, keys_and_values: list) -> None:
        _update(self.stack[-1], keys_and_values)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def named(self, names: str | None) -> None:
        name = names.partition(" ")[::2] if names else [self.stack.pop(-2), self.stack.pop()]
        self.stack.append(_named(*map(_text, name)))

    def reduce(self, _) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or function.name not in _CALLS:
            name = getattr(function, "name", type(function).__name__)
            raise RefusedPickleError(f"it asks for a call of {name}")
        self.stack.append(_CALLS[function.name](*self.charge(arguments)))

    def build(self, _) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Dtype | _Array):
            target.build(self.charge(state))
        elif not isinstance(target, dict):  # the attributes of an OrderedDict are left out
            raise RefusedPickleError(f"it sets the state of a {type(target).__name__}")

    def charge(self, arguments: tuple) -> tuple:
        """Bound what calls get: a pickle can ask for copies of a large value again and again."""
        if not isinstance(arguments, tuple):
            raise RefusedPickleError("it gives arguments that are no tuple")
        self.left -= sum(len(a) for a in arguments if isinstance(a, _SIZED))
        if self.left < 0:
            raise RefusedPickleError("it asks for much more memory than it has bytes")
        return arguments

    def persistent(self, _) -> None:
        key = self.stack.pop()
        if self.load_storage is None or not isinstance(key, tuple):
            raise RefusedPickleError("it asks for something outside the pickle")
        self.stack.append(self.load_storage(key))


_PUSH_ARGUMENT = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "BINSTRING", "SHORT_BINSTRING"),
    *("INT", "LONG"),  # truth values and large numbers of protocol 1
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_PUSH_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_ACTIONS: dict[str, Callable[[_Interpreter, Any], Any]] = {
    "MARK": _Interpreter.mark,
    "TUPLE": _Interpreter.long_tuple,
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "BINPUT": _Interpreter.put,
    "LONG_BINPUT": _Interpreter.put,
    "BINGET": _Interpreter.get,
    "LONG_BINGET": _Interpreter.get,
    "GLOBAL": _Interpreter.named,
    "STACK_GLOBAL": _Interpreter.named,
    "REDUCE": _Interpreter.reduce,
    "BUILD": _Interpreter.build,
    "BINPERSID": _Interpreter.persistent,
}


def read_pickle(
    file: BinaryIO, size: int, load_storage: Callable[[tuple], torch.Tensor] | None = None
) -> Any:
    """Read the next pickle of a file.

    Args:
        file: binary; is left behind the pickle.
        size: bytes that are left in it.
        load_storage: from PyTorch's persistent id, ``("storage", kind, key, ...)`` with a
            :class:`Global` as kind, to the (N,) values of that storage.

    Returns:
        Dicts (in place of ordered dicts and counters, too), lists and tuples of tensors, arrays,
        numbers, texts, bytes, torch dtypes and None.

    Raises:
        RefusedPickleError: it asks for something else, or is so large that no weights need it.
        Exception: of any kind, it is damaged.
    """
    result = _Interpreter(load_storage, most=4 * size + 2**20).run(_Stream(file, size))
    return _Finisher().finish(result)


class _Finisher:
    """Puts the arrays in place, and bounds what else walks over the values."""

    def __init__(self):
        self.count = 0

    def finish(self, value: Any, depth: int = 0) -> Any:
        self.count += 1
        if depth > _MAX_DEPTH or self.count > _MAX_VALUES:
            raise RefusedPickleError(
                f"it is nested deeper than {_MAX_DEPTH}, or has more than {_MAX_VALUES} values"
            )
        if isinstance(value, _Array) and value.array is not None:
            return value.array
        if isinstance(value, dict):
            return {key: self.finish(v, depth + 1) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.finish(v, depth + 1) for v in value)
        if isinstance(value, Global | _Dtype | _Array):
            raise RefusedPickleError("it holds an array without content, or the name of a type")
        return value
