"""Values as they stand in the file of a sweep, read with errors that name them."""

from __future__ import annotations

import json
from typing import Any

import yaml

#: Values of a document at most, each counted as often as aliases repeat it
MOST_VALUES = 1_000_000


class _Loader(yaml.SafeLoader):
    """
    YAML of plain data, in which a key that is there twice is an error: the first one would be gone without a word. So are
    aliases that lead back to themselves, or that blow a few lines up to millions.
    """

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _n_values(node, {}) > MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"aliases make it more than {MOST_VALUES} values", problem_mark=node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} is there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def _n_values(node: yaml.Node, known: dict[int, int | None]) -> int:
    if id(node) not in known:
        known[id(node)] = None  # until it is known
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        nodes = (part for item in parts for part in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1 + sum(_n_values(part, known) for part in nodes)
    number = known[id(node)]
    if number is None:
        raise yaml.MarkedYAMLError(problem="an alias leads back to itself", problem_mark=node.start_mark)
    return number


def read_yaml(text: str) -> Any:
    """
    :param text: a document
    :return: what it holds
    :raises yaml.YAMLError: if it is none, a mapping has a key twice, or aliases make it endless
    :raises ValueError: if it is nested too deeply
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def mapping(where: str, value: Any) -> dict[str, Any]:
    """A mapping of names that can be written as JSON, as results are."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{where}: {value!r} is no mapping of names to values")
    try:
        json.dumps(value, sort_keys=True)
    except TypeError as error:
        raise ValueError(
            f"{where}: {value!r} has something else than numbers, strings, lists and mappings: {error}"
        ) from error
    return value


def count(where: str, value: Any, minimum: int = 1, maximum: int | None = None) -> int:
    """
    :param where: key, for the message
    :param value: an integer, also written as ``1e6``, which yaml takes for a string
    :param minimum: least value
    :param maximum: largest value, if there is one
    :raises ValueError: if it is none
    """
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or not number.is_integer() or number < minimum or (maximum is not None and number > maximum):
        most = "" if maximum is None else f" and at most {maximum}"
        raise ValueError(f"{where}: {value!r} is no whole number of at least {minimum}{most}")
    return int(number)


def counts(where: str, values: Any, minimum: int = 1, maximum: int | None = None, empty: bool = False) -> list[int]:
    """
    :param where: key, for the message
    :param values: a list of integers
    :param minimum: least value
    :param maximum: largest value, if there is one
    :param empty: whether the list may be empty
    :raises ValueError: if it is none, or one is there twice
    """
    if not isinstance(values, list) or not (values or empty):
        raise ValueError(f"{where}: {values!r} is no list of whole numbers")
    numbers = [count(where, value, minimum, maximum) for value in values]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{where}: {numbers} has a number twice")
    return numbers
