"""Packed numbers come back as they were, and nothing else goes in or out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_rmdp.common.packing import is_plain, pack, unpack


@pytest.mark.parametrize(
    "value",
    [
        [None, True, 2**100, -0.0, 0.1, 1e-320, float("inf"), "ä", b"\x00\xff", (1, [2.0], ())],
        {"a": {0: 1, (1, 2): "b", None: []}, "array": {}},
        np.float32(0.1),
        np.int64(3),
    ],
)
def test_values_come_back(value: Any) -> None:
    again = unpack(pack(value))
    assert again == value and repr(again) == repr(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.uint32).reshape(2, 3).T,
        np.array([np.nan, -0.0]),
        np.array(["ab", "c"]),
        np.zeros((0, 4), dtype=np.float32),
        np.array(True),
        np.arange(3, dtype=">i2"),
    ],
)
def test_arrays_come_back_and_can_be_written_to(array: np.ndarray) -> None:
    again = unpack(pack([array, 1]))[0]
    np.testing.assert_array_equal(again, array, strict=True)
    again[...] = again


@pytest.mark.parametrize("dtype", [th.float64, th.bfloat16, th.bool, th.int64, th.uint8])
@pytest.mark.parametrize("shape", [(), (0, 2), (2, 3)])
def test_tensors_come_back(dtype: th.dtype, shape: tuple[int, ...]) -> None:
    tensor = th.ones(shape, dtype=dtype)
    again = unpack(pack({"tensor": tensor.t()}))["tensor"]
    assert again.dtype == dtype and th.equal(again, tensor.t())


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None]), len, {"a": [0, lambda: 0]}])
def test_anything_else_is_refused_by_its_place(value: Any) -> None:
    assert not is_plain(value)
    with pytest.raises(TypeError, match=r"^state"):
        pack(value)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b'{"a":1,"b":2}',
        b'{"array":["O",[1],0,8]}',
        b'{"tensor":["load",[1],0,8]}',
        b'{"array":["<f8",[9],0,8]}',
        b'{"x":[0,8]}',
    ],
)
def test_other_bytes_are_refused(header: bytes) -> None:
    with pytest.raises(ValueError, match="no packed numbers"):
        unpack(len(header).to_bytes(8, "little") + header + bytes(8))
