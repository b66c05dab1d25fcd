"""Spaces as readable JSON and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """
    >>> space_to_json(spaces.Box(0.0, np.inf, (2,)))
    {'type': 'Box', 'shape': [2], 'dtype': 'float32', 'low': 0.0, 'high': 'inf'}

    :param space: one that SB3's PPO knows
    :return: the same in the types of JSON; bounds that are the same everywhere are one number, infinities strings
    :raises ValueError: if it is of another kind
    """
    name = type(space).__name__
    if isinstance(space, spaces.Dict):
        return {"type": name, "spaces": {key: space_to_json(part) for key, part in space.spaces.items()}}
    if isinstance(space, spaces.Box):
        bounds = {"low": _bounds(space.low), "high": _bounds(space.high)}
        return {"type": name, "shape": list(space.shape), "dtype": str(space.dtype), **bounds}
    if isinstance(space, spaces.Discrete):
        return {"type": name, "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": name, "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"type": name, "n": list(space.n) if isinstance(space.n, tuple) else int(space.n)}
    raise ValueError(f"{space} is no space of SB3's PPO")


def space_from_json(content: dict[str, Any]) -> spaces.Space:
    """
    :param content: written by :func:`space_to_json`
    :return: the space
    :raises ValueError: if it describes none
    """
    kind = content.get("type")
    if kind == "Dict":
        return spaces.Dict({key: space_from_json(part) for key, part in content["spaces"].items()})
    if kind == "Box":
        shape, dtype = tuple(content["shape"]), np.dtype(content["dtype"])
        low, high = (np.broadcast_to(np.array(content[name], dtype=dtype), shape) for name in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(content["n"], start=content["start"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(content["nvec"], start=content["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(content["n"])
    raise ValueError(f"{content} describes no space")


def _bounds(bounds: np.ndarray) -> Any:
    same = bounds.size > 0 and bool((bounds == bounds.flat[0]).all())
    return _finite(bounds.flat[0].item() if same else bounds.tolist())


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value if np.isfinite(value) else str(value)
