"""Whether what a file says can be a budget curve: kinds of its values, before anything is computed from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: What values are, by name
COUNTS = ("k", "n_agents", "n_eval_episodes")
NUMBERS = ("welfare", "worst_utility", "greedy_welfare")
NUMBERS_OR_NONE = ("standard_error", "worst_error", "optimum", "transitions_per_policy", "transitions_in_total")


def check_curve(content: Mapping[str, Any]) -> None:
    """
    :param content: of a file
    :raises ValueError: if a value is of another kind than those of a curve, or there are no rows
    :raises KeyError: if one is missing
    """
    _check(content, ("n_agents", "n_eval_episodes"), {"env": str, "deterministic": bool, "settings": dict, "rows": list})
    if not content["rows"]:
        raise ValueError("it has no rows")
    for row in content["rows"]:
        if not isinstance(row, dict):
            raise ValueError(f"{row!r} is no row")
        _check(row, ("k", *NUMBERS, *NUMBERS_OR_NONE), {"seed": int, "started_from": list})
        if row["model"] is not None and not isinstance(row["model"], str):
            raise ValueError(f"model is {row['model']!r}")


def _check(content: Mapping[str, Any], names: tuple[str, ...], kinds: Mapping[str, type]) -> None:
    for name in names:
        value = content[name]
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        right = number or (value is None and name in NUMBERS_OR_NONE)
        if not right or (name in COUNTS and not (isinstance(value, int) and value > 0)):
            raise ValueError(f"{name} is {value!r}")
    for name, kind in kinds.items():
        if not isinstance(content[name], kind) or (kind is int and isinstance(content[name], bool)):
            raise ValueError(f"{name} is {content[name]!r}")
