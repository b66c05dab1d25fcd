"""
Settings that RL Zoo has written: YAML with objects of Python in it, read without making any but ordered dicts and tuples.

RL Zoo reads them with a loader that calls whatever a file names. Files come from others, and so do folders beside a model that
are none of RL Zoo's.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml
from stable_baselines3.common.vec_env import VecEnvWrapper

#: What RL Zoo's files begin with
ORDERED = "tag:yaml.org,2002:python/object/apply:collections.OrderedDict"
BEGINNING = b"!!python/object/apply:collections.OrderedDict"

TUPLE = "tag:yaml.org,2002:python/tuple"

#: Bytes of a file, and values in it: more are no settings. A few lines of YAML can stand for more values than memory holds
LARGEST, MOST_VALUES = 1_000_000, 1_000_000

#: Packages whose modules and wrappers settings may name; importing others takes trust
KNOWN_PACKAGES = ("gymnasium", "rl_zoo3", "sb3_contrib", "sb3_rmdp", "stable_baselines3")


class _Loader(yaml.SafeLoader):
    """Plain data, ordered dicts and tuples."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """No merging of mappings, which RL Zoo does not write: a few lines of it grow without end."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "mappings are not merged here", key.start_mark)


def _ordered(loader: _Loader, node: yaml.Node) -> dict[Any, Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "an ordered dict is made of pairs", node.start_mark)
    pairs = loader.construct_sequence(node, deep=True)
    try:
        return dict(*pairs)
    except (TypeError, ValueError) as error:
        raise yaml.constructor.ConstructorError(None, None, "an ordered dict is made of pairs", node.start_mark) from error


def _tuple(loader: _Loader, node: yaml.Node) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "a tuple is a list of values", node.start_mark)
    return tuple(loader.construct_sequence(node, deep=True))


def _refused(loader: _Loader, node: yaml.Node) -> Any:
    raise _Refused(node.tag.replace("tag:yaml.org,2002:", "!!"), node.start_mark.line + 1)


_Loader.add_constructor(ORDERED, _ordered)
_Loader.add_constructor(TUPLE, _tuple)
_Loader.add_constructor(None, _refused)


class _Refused(Exception):
    """A tag that stands for more than plain data; its arguments are the tag and its line."""


def is_of_the_zoo(path: Path) -> bool:
    """
    :param path: a ``config.yml``
    :return: whether it begins as RL Zoo's do; others are somebody else's
    """
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(BEGINNING)) == BEGINNING
    except OSError:
        return False


def read_settings(path: Path, trusted: bool = False) -> dict[str, Any]:
    """
    :param path: ``config.yml`` or ``args.yml`` of RL Zoo
    :param trusted: make whatever objects the file names, as RL Zoo does, which may run any code
    :return: its content
    :raises ValueError: if it holds something else, or names an object and is not trusted
    """
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} holds no settings of RL Zoo: it is larger than {LARGEST} bytes")
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=yaml.UnsafeLoader if trusted else _Loader)
        if not isinstance(content, Mapping):
            raise ValueError(f"it holds {type(content).__name__}, not names and values")
        if _size(content, {}) > MOST_VALUES:
            raise ValueError(f"it stands for more than {MOST_VALUES} values")
    except _Refused as error:
        tag, line = error.args
        raise ValueError(
            f"{path}, line {line}, has the tag {tag}, which would run code: name the environment with --env, or pass "
            "--trusted (trusted=True) if you know where the file is from"
        ) from error
    except Exception as error:  # parsing damaged text, or what a trusted one names, may raise anything
        said = " ".join(str(error).split())
        raise ValueError(f"{path} holds no settings of RL Zoo ({type(error).__name__}: {said}): it is damaged") from error
    return dict(content)


def _size(value: Any, known: dict[int, int]) -> int:
    """Number of values that one holds if every reference is followed; what is referred to twice is counted once, and added."""
    if not isinstance(value, (Mapping, list, tuple)):
        return 1
    if id(value) not in known:
        known[id(value)] = MOST_VALUES + 1  # what holds itself has no end
        parts = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(value)]


def check_modules(path: Path, hyperparams: Mapping[str, Any], arguments: Mapping[str, Any], env_id: str) -> None:
    """
    See that making the environment imports nothing but packages that are known, and calls nothing but wrappers.

    :param path: the run folder
    :param hyperparams: of the training
    :param arguments: its command line
    :param env_id: id of the environment
    :raises ValueError: if settings name another module
    """
    packages = arguments.get("gym_packages") or []
    module = env_id.rpartition(":")[0]
    named = [*(packages if isinstance(packages, list) else [packages]), *([module] if module else [])]
    wrappers = [name for key in ("env_wrapper", "vec_env_wrapper") for name in _wrappers(hyperparams.get(key))]
    for name in [*named, *wrappers]:
        if not isinstance(name, str) or name.partition(".")[0] not in KNOWN_PACKAGES:
            raise ValueError(
                f"{path} names {name!r}, and to import it would run its code: name the environment with --env, or pass "
                "--trusted (trusted=True) if you know where the folder is from"
            )
    for name in wrappers:
        of, _, last = name.rpartition(".")
        made = getattr(importlib.import_module(of), last, None)
        if not (isinstance(made, type) and issubclass(made, (gym.Wrapper, VecEnvWrapper))):
            raise ValueError(f"{path} names {name!r} as a wrapper of environments, and it is none")


def _wrappers(value: Any) -> list[Any]:
    """Names of wrappers, each as it is or as the one key of its arguments."""
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return [name for entry in listed for name in (entry if isinstance(entry, dict) else [entry])]
