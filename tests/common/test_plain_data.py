"""Attributes as plain data: everything comes back as it was, and nothing else than data does."""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from rl_zoo3.utils import SimpleLinearSchedule
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import nn

from sb3_rmdp.common.assignment import EMAssignment
from sb3_rmdp.common.plain_data import NotPlain, decode, encode, find_class, names_own_class


def through_json(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value))))


class OwnExtractor(NatureCNN):
    pass


class OwnBox(spaces.Box):
    pass


VALUES: list[Any] = [
    None,
    True,
    3,
    -0.1,
    float("inf"),
    "a",
    [1, [2.5, None]],
    {"pi": [64], "vf": [64]},
    (0.9, 0.999),
    {1: "a", (2, 3): "b"},
    {":plain:": "tuple", "items": []},
    {3, 1, 2},
    OrderedDict(b=1, a=2),
    deque([{"r": 1.5, "l": 3}], maxlen=100),
    Path("logs/here"),
    np.float32(0.1),
    np.int64(7),
    np.bool_(True),
    np.str_("ü"),
    nn.ReLU,
    th.optim.AdamW,
    NatureCNN,
    EMAssignment,
    OwnExtractor,
    spaces.Box(-1.0, np.inf, (2, 3), np.float64),
    spaces.Box(0, 255, (3, 8, 8), np.uint8),
    spaces.Box(np.array([-1.0, 0.1], np.float32), np.array([1.0, 0.3], np.float32)),
    spaces.Discrete(4),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary((2, 2)),
    spaces.Dict(a=spaces.Discrete(3), b=spaces.Box(0, 1, (2,))),
]


@pytest.mark.parametrize("value", VALUES, ids=[repr(value)[:40] for value in VALUES])
def test_values_come_back_as_they_were(value: Any) -> None:
    found = through_json(value)
    assert type(found) is type(value) and found == value
    if isinstance(value, deque):
        assert found.maxlen == value.maxlen


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8", "u1", "?", "c8", "U3", ">f4"])
def test_arrays_come_back_bit_for_bit_and_can_be_written_to(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    found = through_json(array)
    assert found.dtype == array.dtype and found.flags.writeable
    np.testing.assert_array_equal(found, array)
    assert through_json(np.zeros((0, 4))).shape == (0, 4)
    assert np.isnan(through_json(np.array([np.nan])))[0]


@pytest.mark.parametrize(
    "schedule",
    [ConstantSchedule(0.2), FloatSchedule(0.1), FloatSchedule(LinearSchedule(5e-2, 1e-3, 0.5)), SimpleLinearSchedule("0.4")],
)
def test_schedules_come_back_with_the_same_values(schedule: Any) -> None:
    found = through_json(schedule)
    assert type(found) is type(schedule)
    assert [found(x) for x in (1.0, 0.7, 0.0)] == [schedule(x) for x in (1.0, 0.7, 0.0)]


def test_what_is_no_plain_data_is_not_taken_for_it() -> None:
    class Local(nn.Module):
        pass

    own_schedule = FloatSchedule(lambda remaining: remaining)
    no_data: list[Any] = [lambda _: 0.0, own_schedule, object(), Local, str, Path.unlink, np.array([object()]), th.zeros(1)]
    no_data += [OwnBox(0, 1), spaces.Tuple((spaces.Discrete(2),)), spaces.Dict(a=OwnBox(0, 1)), {"a": [print]}]
    for value in no_data:
        with pytest.raises(NotPlain):
            encode(value)


@pytest.mark.parametrize(
    "content",
    [
        {":plain:": "no such kind"},
        {":plain:": "tuple"},
        {":plain:": "class", "name": "os:system"},
        {":plain:": "class", "name": "subprocess:Popen"},
        {":plain:": "class", "name": "not_imported_by_anybody:Class"},
        {":plain:": "class", "name": ""},
        {":plain:": "class", "name": 3},
        {":plain:": "schedule", "name": "Popen"},
        {":plain:": "array", "dtype": "O", "shape": [1], "data": ""},
        {":plain:": "array", "dtype": "f4", "shape": [3], "data": "AAAA"},
        {":plain:": "space", "space": {"type": "Graph"}},
        {":plain:": "dict", "pairs": [[[], 1]]},
    ],
)
def test_what_describes_no_value_is_an_error_that_says_so(content: Any) -> None:
    with pytest.raises(ValueError):
        decode([content])


def test_a_class_is_found_only_if_it_is_imported_and_part_of_a_model_or_registered() -> None:
    assert find_class("torch.nn.modules.activation:Tanh") is nn.Tanh
    with pytest.raises(ValueError, match="no part of a model"):
        find_class("pathlib:Path")
    with th.serialization.safe_globals([Path]):
        assert find_class(f"{Path.__module__}:Path") is Path


def test_a_class_of_ones_own_is_known_as_such() -> None:
    assert names_own_class(encode({"a": [OwnExtractor]})) and not names_own_class(encode({"a": [nn.Tanh, EMAssignment]}))
