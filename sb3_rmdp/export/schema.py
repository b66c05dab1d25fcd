"""What a manifest must hold: types, ranges, and that its parts agree. A hash tells nothing of what it is the hash of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from gymnasium import spaces

from sb3_rmdp.common.normalization import WHOLE
from sb3_rmdp.common.spaces import space_from_json, space_to_json

#: Name of the file of who is served by whom, where agents are many
ASSIGNMENT = "assignment.npy"

#: Kinds of files of a representative, and how their names end; the first is always there
KINDS = {"sb3": ".zip", "onnx": ".onnx"}

#: A hash or a key in hexadecimal digits
DIGITS = re.compile(r"[0-9a-f]{64}")

#: More agents, or numbers in an observation, are a mistake: memory would be taken for them
MOST_AGENTS, MOST_NUMBERS = 10**9, 2**24


class Wrong(ValueError):
    """What is wrong with a part of a manifest."""


def check_manifest(content: dict[str, Any]) -> None:
    """
    :param content: of a manifest
    :raises ValueError: if a part is missing, of another type or range, or does not agree with the others; names it
    """
    _fields(content, "the manifest", TOP, optional={"signed_by": _none_or(_digits)})
    n_agents, k = content["population"]["n_agents"], content["model"]["k"]
    onnx = _check_spaces(content)
    rows = content["representatives"]
    if len(rows) != k:
        raise Wrong(f"representatives: {len(rows)} are listed, and model.k is {k}")
    table = content["assignment"]["file"]
    for index, row in enumerate(rows):
        _check_row(row, index, n_agents, listed=table is None, kinds=("sb3", "onnx") if onnx else ("sb3",))
    if table is None:
        _check_served([row["agents"] for row in rows], n_agents)
    elif table["name"] != ASSIGNMENT:
        raise Wrong(f"assignment.file.name is {table['name']!r}, not {ASSIGNMENT!r}")
    served = sum(row["n_agents"] for row in rows)
    if served != n_agents:
        raise Wrong(f"representatives serve {served} agents, and there are {n_agents}")


def _check_spaces(content: dict[str, Any]) -> bool:
    """Spaces that can be made, and inputs of ONNX files that are theirs; returns whether there are any."""
    from sb3_rmdp.export.graph import input_name  # not at the top: it imports torch's part of all this

    made: dict[str, spaces.Space] = {}
    for name in ("observation_space", "action_space"):
        _check_size(name, content[name])
        try:
            made[name] = space_from_json(content[name])
            again = space_to_json(made[name])
        except Exception as error:  # constructors of spaces may raise anything
            raise Wrong(f"{name} describes no space: {error}") from error
        if again != content[name]:
            raise Wrong(f"{name} is not what export writes for {made[name]}")
    if isinstance(made["action_space"], spaces.Dict):
        raise Wrong("action_space is a Dict, which no policy of SB3's PPO has")
    inputs, space = content["onnx_inputs"], made["observation_space"]
    wanted = [input_name(key) for key in (space.spaces if isinstance(space, spaces.Dict) else [WHOLE])]
    if inputs not in (None, wanted):
        raise Wrong(f"onnx_inputs is {inputs!r}, and the observation space has {wanted}")
    return inputs is not None


def _check_size(name: str, content: Any, within: bool = False) -> None:
    """How many numbers a space has, before they are made."""
    if not isinstance(content, dict):
        raise Wrong(f"{name} describes no space")
    if content.get("type") == "Dict":
        if within or not isinstance(content.get("spaces"), dict):
            raise Wrong(f"{name} describes no space")
        for key, part in content["spaces"].items():
            _check_size(f"{name}.{key}", part, within=True)
        return
    n = content.get("n") if content.get("type") == "MultiBinary" else None
    shape = content.get("shape", n)
    sides = shape if isinstance(shape, list) else [] if shape is None else [shape]
    if not all(_is_int(side) and side >= 0 for side in sides) or math.prod(sides) > MOST_NUMBERS:
        raise Wrong(f"{name} has the shape {shape!r}: sizes are whole numbers, and there are at most {MOST_NUMBERS} numbers")


def _check_row(row: Any, index: int, n_agents: int, listed: bool, kinds: Sequence[str]) -> None:
    """One representative."""
    where = f"representatives[{index}]"
    _fields(row, where, ROW)
    if row["index"] != index:
        raise Wrong(f"{where}.index is {row['index']}, not {index}")
    if row["n_agents"] > n_agents:
        raise Wrong(f"{where}.n_agents is {row['n_agents']}, and there are {n_agents}")
    if (row["agents"] is not None) != listed:
        where_they_are = "in it" if listed else f"in {ASSIGNMENT}"
        raise Wrong(f"{where}.agents is {'null' if listed else 'a list'}, and agents are listed {where_they_are}")
    if listed and len(row["agents"]) != row["n_agents"]:
        raise Wrong(f"{where}.n_agents is {row['n_agents']}, and {len(row['agents'])} are listed")
    for name in ("files", "largest_difference"):
        if sorted(row[name]) != sorted(kinds):
            raise Wrong(f"{where}.{name} is of {sorted(row[name])}, and files of this export are of {sorted(kinds)}")
    for kind, entry in row["files"].items():
        _file(entry, f"{where}.files.{kind}")
        wanted = f"representative_{index}{KINDS[kind]}"
        if entry["name"] != wanted:
            raise Wrong(f"{where}.files.{kind}.name is {entry['name']!r}, not {wanted!r}")
        _finite(row["largest_difference"][kind], f"{where}.largest_difference.{kind}")


def _check_served(lists: Sequence[Sequence[int]], n_agents: int) -> None:
    """Each agent once, and none that there is not."""
    by: dict[int, int] = {}
    for index, agents in enumerate(lists):
        for agent in agents:
            if not 0 <= agent < n_agents:
                raise Wrong(f"representatives[{index}].agents holds {agent}: agents are numbered 0 to {n_agents - 1}")
            if agent in by:
                raise Wrong(f"agent {agent} is served by representatives {by[agent]} and {index}: each is served by one")
            by[agent] = index
    if len(by) < n_agents:
        # Not over all numbers: there may be a billion
        lacking = next(agent for agent in range(len(by) + 1) if agent not in by)
        raise Wrong(f"agent {lacking} is served by no representative: there are {n_agents} agents, and {len(by)} are listed")


Check = Callable[[Any, str], None]


def _fields(content: Any, where: str, checks: dict[str, Check], optional: dict[str, Check] | None = None) -> None:
    """All fields of an object, and no others."""
    if not isinstance(content, dict):
        raise Wrong(f"{where} is {_short(content)}, not an object")
    prefix = "" if where == "the manifest" else f"{where}."
    for name in content:
        if name not in checks and name not in (optional or {}):
            raise Wrong(f"{where} holds {_short(name)}, which no export writes")
    for name, check in checks.items():
        if name not in content:
            raise Wrong(f"{prefix}{name} is missing")
        check(content[name], prefix + name)
    for name, check in (optional or {}).items():
        if name in content:
            check(content[name], prefix + name)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(low: int, high: int = 2**63 - 1) -> Check:
    def check(value: Any, where: str) -> None:
        if not _is_int(value) or not low <= value <= high:
            raise Wrong(f"{where} is {_short(value)}, not a whole number from {low} to {high}")

    return check


def _finite(value: Any, where: str) -> None:
    # Integers of JSON may be larger than any float
    if not (isinstance(value, float) and math.isfinite(value)) and not (_is_int(value) and abs(value) < 2**63):
        raise Wrong(f"{where} is {_short(value)}, not a number")


def _positive(value: Any, where: str) -> None:
    _finite(value, where)
    if value <= 0:
        raise Wrong(f"{where} is {_short(value)}, not a number above 0")


def _text(value: Any, where: str) -> None:
    if not isinstance(value, str):
        raise Wrong(f"{where} is {_short(value)}, not a text")


def _name(value: Any, where: str) -> None:
    if not isinstance(value, str) and not _is_int(value):
        raise Wrong(f"{where} is {_short(value)}, neither a text nor a whole number")


def _digits(value: Any, where: str) -> None:
    if not isinstance(value, str) or not DIGITS.fullmatch(value):
        raise Wrong(f"{where} is {_short(value)}, not 64 hexadecimal digits")


def _none_or(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def _list_of(check: Check) -> Check:
    def check_all(value: Any, where: str) -> None:
        if not isinstance(value, list):
            raise Wrong(f"{where} is {_short(value)}, not a list")
        for index, item in enumerate(value):
            check(item, f"{where}[{index}]")

    return check_all


def _object(**checks: Check) -> Check:
    return lambda value, where: _fields(value, where, checks)


def _mapping(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise Wrong(f"{where} is {_short(value)}, not an object")


def _versions(value: Any, where: str) -> None:
    _mapping(value, where)
    for name, number in value.items():
        _none_or(_text)(number, f"{where}.{name}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_file = _object(name=_text, bytes=_integer(0), sha256=_digits)

ROW: dict[str, Check] = {
    "index": _integer(0),
    "n_agents": _integer(0, MOST_AGENTS),
    "agents": _none_or(_list_of(_integer(-(2**63)))),
    "files": _mapping,
    "largest_difference": _mapping,
}

TOP: dict[str, Check] = {
    "format": _text,
    "schema": _integer(1),
    "versions": _versions,
    "model": _object(
        file=_none_or(_text),
        sha256=_none_or(_digits),
        algorithm=_text,
        policy=_text,
        k=_integer(1),
        num_timesteps=_integer(0),
    ),
    "population": _object(n_agents=_integer(1, MOST_AGENTS), population_id=_none_or(_name), n_features=_none_or(_integer(1))),
    "observation_space": _mapping,
    "action_space": _mapping,
    "normalization": _list_of(_object(by=_text, key=_none_or(_text), clip=_positive)),
    "onnx_inputs": _none_or(_list_of(_text)),
    "values": _none_or(_text),
    "check": _object(observations=_integer(1), tolerance=_positive),
    "assignment": _object(method=_text, file=_none_or(_file)),
    "representatives": _list_of(_mapping),
    "sha256": _digits,
}
