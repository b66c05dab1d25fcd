"""
Numbers as bytes, many of them, exactly: nested lists and dicts of numbers, strings, arrays and tensors.

Nothing in them could run when they are read. What is nested is JSON, which Python writes and reads without losing a bit of a
float; arrays lie behind it as they are in memory, which for those of a training is a fraction of the time and space that
:mod:`sb3_rmdp.common.plain_data` needs, where a reader can read them.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch as th

#: Kinds of numpy arrays that are numbers, truth values or text
KINDS = "biufcUS"


def pack(value: Any) -> bytes:
    """
    :param value: ``None``, truth values, numbers, strings, bytes, numpy scalars, arrays and tensors, and lists, tuples and
        dicts of these
    :return: its bytes, for :func:`unpack`
    :raises TypeError: if something else is within it, naming what and where
    """
    arrays: list[bytes] = []
    header = json.dumps(_Writer(arrays).written(value, "state"), separators=(",", ":")).encode()
    return b"".join([len(header).to_bytes(8, "little"), header, *arrays])


def unpack(content: bytes) -> Any:
    """
    :param content: from :func:`pack`
    :return: the same value; arrays and tensors belong to the caller
    :raises ValueError: if these are other bytes
    """
    begin = 8 + int.from_bytes(content[:8], "little")
    try:
        return _read(json.loads(content[8:begin]), memoryview(content)[begin:])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"these {len(content)} bytes hold no packed numbers ({error})") from error


def is_plain(value: Any) -> bool:
    """
    :param value: anything
    :return: whether :func:`pack` takes it
    """
    try:
        _Writer([]).written(value, "")
    except TypeError:
        return False
    return True


class _Writer:
    """
    JSON for a value; whatever JSON does not know is a dict with one key, its kind.

    :param arrays: bytes of arrays, one after the other
    """

    def __init__(self, arrays: list[bytes]):
        self._arrays = arrays
        self._length = 0

    def written(self, value: Any, path: str) -> Any:
        if isinstance(value, np.generic):
            return {"scalar": self._array(np.asarray(value), path)}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, np.ndarray):
            return {"array": self._array(value, path)}
        if isinstance(value, th.Tensor):
            raw = value.detach().cpu().contiguous().reshape(-1).view(th.uint8).numpy()
            dtype = str(value.dtype).removeprefix("torch.")
            return {"tensor": [dtype, list(value.shape), *self._bytes(raw.tobytes())]}
        if isinstance(value, bytes):
            return {"bytes": self._bytes(value)}
        if isinstance(value, list):
            return [self.written(item, f"{path}[{i}]") for i, item in enumerate(value)]
        if type(value) is tuple:
            return {"tuple": [self.written(item, f"{path}[{i}]") for i, item in enumerate(value)]}
        if isinstance(value, dict):
            pairs = [[self.written(key, f"{path}, a key,"), self.written(x, f"{path}[{key!r}]")] for key, x in value.items()]
            return {"dict": pairs}
        raise TypeError(f"{path} is a {type(value).__name__}: only numbers, strings, arrays, and lists and dicts of them do")

    def _array(self, array: np.ndarray, path: str) -> list[Any]:
        if array.dtype.kind not in KINDS:
            raise TypeError(f"{path} is an array of {array.dtype}: only numbers and strings do")
        return [array.dtype.str, list(array.shape), *self._bytes(array.tobytes())]

    def _bytes(self, content: bytes) -> list[int]:
        """Where they are, and how many."""
        begin = self._length
        self._arrays.append(content)
        self._length += len(content)
        return [begin, len(content)]


def _read(value: Any, arrays: memoryview) -> Any:
    if isinstance(value, list):
        return [_read(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "dict":
        return {_read(key, arrays): _read(item, arrays) for key, item in content}
    if kind == "tuple":
        return tuple(_read(item, arrays) for item in content)
    begin, length = content[-2:]
    raw = arrays[begin : begin + length]
    if kind == "bytes":
        return raw.tobytes()
    name, shape = content[:2]
    if kind == "tensor":
        dtype = getattr(th, name)
        if not isinstance(dtype, th.dtype):
            raise ValueError(f"{name} is no type of a tensor")
        # A copy, since it is to be written to
        return th.frombuffer(bytearray(raw), dtype=dtype).reshape(shape) if length else th.empty(shape, dtype=dtype)
    if np.dtype(name).kind not in KINDS:
        raise ValueError(f"{name} is no type of numbers or strings")
    array = np.frombuffer(raw, dtype=np.dtype(name)).reshape(shape)
    return array[()] if kind == "scalar" else array.copy()
