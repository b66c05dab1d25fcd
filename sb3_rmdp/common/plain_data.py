"""
Attributes of a model as plain data: JSON that is read back without unpickling anything.

JSON's own types stand as they are. Any other value is a mapping whose entry ``":plain:"`` names its kind. Classes are
references: reading one looks it up in the modules that the program has imported already, and imports nothing.
"""

from __future__ import annotations

import base64
import inspect
import pathlib
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer
from torch import nn

from sb3_rmdp.common.spaces import space_from_json, space_to_json

#: Entry of a mapping that stands for a value of another type
KIND = ":plain:"

#: Schedules that hold nothing but numbers and other schedules, by module; :func:`decode` makes instances of these alone
SCHEDULES = {
    "FloatSchedule": "stable_baselines3.common.utils",
    "ConstantSchedule": "stable_baselines3.common.utils",
    "LinearSchedule": "stable_baselines3.common.utils",
    "SimpleLinearSchedule": "rl_zoo3.utils",
}

#: What a model is made of. A reference to a class that derives from none of these is refused
BASES = (nn.Module, th.optim.Optimizer, BaseBuffer)

#: Packages whose classes every reader has, so that a reference is enough
PACKAGES = ("sb3_rmdp", "stable_baselines3", "sb3_contrib", "torch")

#: Kinds of numpy types that are plain numbers, truth values, text or bytes
NUMPY_KINDS = "biufcSU"


class NotPlain(TypeError):
    """A value has no form as plain data."""


class Kind(NamedTuple):
    """
    :param type: exact type of the values
    :param encode: from a value to the entries of its mapping
    :param decode: from these entries to the value
    """

    type: type
    encode: Callable[[Any], dict[str, Any]]
    decode: Callable[[dict[str, Any]], Any]


def encode(value: Any) -> Any:
    """
    >>> encode({"net_arch": [64, 64], "betas": (0.9, 0.999)})
    {'net_arch': [64, 64], 'betas': {':plain:': 'tuple', 'items': [0.9, 0.999]}}

    :param value: an attribute of a model
    :return: the same in the types of JSON
    :raises NotPlain: if it is, or contains, an object of another type
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [encode(item) for item in value]
    if type(value) is dict and KIND not in value and all(type(key) is str for key in value):
        return {key: encode(item) for key, item in value.items()}
    for name, kind in KINDS.items():
        if type(value) is kind.type:
            return {KIND: name, **kind.encode(value)}
    if isinstance(value, np.generic) and value.dtype.kind in NUMPY_KINDS:
        return {KIND: "scalar", **_encode_array(np.asarray(value))}
    if isinstance(value, spaces.Space):
        return {KIND: "space", "space": _encode_space(value)}
    if isinstance(value, type):
        return {KIND: "class", "name": _class_name(value)}
    if SCHEDULES.get(type(value).__name__) == type(value).__module__:
        return {KIND: "schedule", "name": type(value).__name__, **{key: encode(item) for key, item in vars(value).items()}}
    raise NotPlain(f"{type(value).__module__}.{type(value).__qualname__}")


def decode(content: Any) -> Any:
    """
    The inverse of :func:`encode`.

    :param content: plain data
    :return: the value
    :raises ValueError: if the data describe no value, or a class that this program has not imported
    """
    if isinstance(content, list):
        return [decode(item) for item in content]
    if not isinstance(content, dict):
        return content
    if KIND not in content:
        return {key: decode(item) for key, item in content.items()}
    name = content[KIND]
    try:
        if name == "scalar":
            return _decode_array(content)[()]
        if name == "space":
            return space_from_json(content["space"])
        if name == "class":
            return find_class(content["name"])
        if name == "schedule":
            return _decode_schedule(content)
        return KINDS[name].decode(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(content)[:100]} is no plain data of a model ({type(error).__name__}: {error})") from error


def names_own_class(content: Any) -> bool:
    """
    :param content: plain data
    :return: whether they refer to a class of the user's own, which another program may lack
    """
    if isinstance(content, list):
        return any(map(names_own_class, content))
    if not isinstance(content, dict):
        return False
    if content.get(KIND) == "class":
        return str(content["name"]).partition(".")[0].partition(":")[0] not in PACKAGES
    return any(map(names_own_class, content.values()))


def describe(content: Any) -> str:
    """
    >>> describe(encode(np.ones(3))), describe(encode(nn.Tanh)), describe({"a": 1})
    ('array of shape [3]', 'Tanh', "{'a': 1}")

    :param content: plain data
    :return: one line for a reader
    """
    if not isinstance(content, dict) or KIND not in content:
        return str(content)
    if content[KIND] == "class":
        return str(content["name"]).rpartition(":")[2].rpartition(".")[2]
    if content[KIND] == "schedule":
        inner = [item for key, item in content.items() if key not in (KIND, "name")]
        if content["name"] == "FloatSchedule":
            return describe(inner[0])
        named = {key: item for key, item in content.items() if key not in (KIND, "name")}
        return f"{content['name']}({', '.join(f'{key}={describe(item)}' for key, item in named.items())})"
    return f"array of shape {content['shape']}" if content[KIND] == "array" else str(decode(content))


def find_class(name: str) -> type:
    """
    :param name: ``module:Class``
    :return: the class, if this program has imported its module and a model may be made of it, or if it is registered by
        ``torch.serialization.add_safe_globals``
    :raises ValueError: if not
    """
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        # What is there: `getattr` may import what a module makes on demand
        found = getattr(found, "__dict__", {}).get(part)
    if not inspect.isclass(found):
        raise ValueError(f"the class {name}, which this program has not imported")
    if not _is_part(found):
        raise ValueError(f"the class {name}, which is no part of a model (torch.serialization.add_safe_globals registers one)")
    return found


def _is_part(cls: type) -> bool:
    """Whether a model may be made of a class."""
    return issubclass(cls, BASES) or any(cls is known for known in th.serialization.get_safe_globals())


def _class_name(cls: type) -> str:
    name = f"{cls.__module__}:{cls.__qualname__}"
    if not _is_part(cls):
        raise NotPlain(f"the class {name}")
    try:
        known = find_class(name)
    except ValueError as error:
        raise NotPlain(str(error)) from error
    if known is not cls:  # made by a function, or replaced since
        raise NotPlain(f"the class {name}")
    return name


def _encode_space(space: spaces.Space) -> dict[str, Any]:
    parts = space.spaces.values() if type(space) is spaces.Dict else [space]
    known = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Dict)
    try:
        content = space_to_json(space)
    except ValueError as error:
        raise NotPlain(str(error)) from error
    # A class of the user's may hold more than its space, and bounds may be more than JSON tells
    if any(type(part) not in known for part in parts) or space_from_json(content) != space:
        raise NotPlain(str(space))
    return content


def _encode_array(array: np.ndarray) -> dict[str, Any]:
    if array.dtype.kind not in NUMPY_KINDS:
        raise NotPlain(f"an array of {array.dtype}")
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": data}


def _decode_array(content: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(str(content["dtype"]))
    if dtype.kind not in NUMPY_KINDS:
        raise ValueError(f"an array of {dtype} is no plain data")
    return np.frombuffer(base64.b64decode(content["data"]), dtype=dtype).reshape(content["shape"]).copy()


def _decode_schedule(content: dict[str, Any]) -> Any:
    name = content["name"]
    if name not in SCHEDULES:
        raise ValueError(f"the schedule {name} is unknown")
    module = sys.modules.get(SCHEDULES[name])
    if module is None:
        raise ValueError(f"a {name} of the module {SCHEDULES[name]}, which this program has not imported")
    cls = getattr(module, name)
    schedule = cls.__new__(cls)
    schedule.__dict__.update({key: decode(item) for key, item in content.items() if key not in (KIND, "name")})
    return schedule


def _items(values: Any) -> dict[str, Any]:
    return {"items": [encode(item) for item in values]}


def _pairs(values: dict) -> dict[str, Any]:
    return {"pairs": [[encode(key), encode(item)] for key, item in values.items()]}


def _from_pairs(content: dict[str, Any]) -> list[tuple[Any, Any]]:
    return [(decode(key), decode(item)) for key, item in content["pairs"]]


KINDS: dict[str, Kind] = {
    "tuple": Kind(tuple, _items, lambda content: tuple(decode(content["items"]))),
    "set": Kind(set, lambda value: _items(sorted(value, key=repr)), lambda content: set(decode(content["items"]))),
    "dict": Kind(dict, _pairs, lambda content: dict(_from_pairs(content))),
    "ordered dict": Kind(OrderedDict, _pairs, lambda content: OrderedDict(_from_pairs(content))),
    "deque": Kind(
        deque,
        lambda value: {"maxlen": value.maxlen, **_items(value)},
        lambda content: deque(decode(content["items"]), content["maxlen"]),
    ),
    "array": Kind(np.ndarray, _encode_array, _decode_array),
    "path": Kind(type(pathlib.Path()), lambda value: {"path": str(value)}, lambda content: pathlib.Path(content["path"])),
}
