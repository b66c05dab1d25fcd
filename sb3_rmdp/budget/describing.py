"""
Arguments as plain data: equal in another process if they are the same, and different if they are not.

A function is told by its name and a digest of its code, of the values that it holds, and of the plain values and functions
that it finds in its module. Classes, and functions of other languages, are told by their names.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import gymnasium as gym
import numpy as np

#: An address in memory, in the text of an object
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")

#: Digits of a digest
DIGITS = 16


def name_of(value: Any) -> str:
    """
    >>> name_of(max), name_of(functools.partial(max, 1))
    ('builtins:max', 'builtins:max')

    :param value: a function, a class or any other object
    :return: what people know it by
    """
    while isinstance(value, functools.partial):
        value = value.func
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}:{value.__qualname__}"
    return f"{type(value).__module__}:{type(value).__qualname__}"


def described(value: Any, strict: bool = False) -> Any:
    """
    :param value: an argument
    :param strict: refuse objects that cannot be told from others of their kind, which otherwise are told by their text
    :return: the same as plain data, equal in another process
    :raises ValueError: if it is strict, and there is such an object
    """
    return _Description(strict).of(value)


class _Description:
    """
    :param strict: see :func:`described`
    """

    def __init__(self, strict: bool):
        self._strict = strict
        #: What is being described: functions and objects may lead back to themselves
        self._within: list[Any] = []

    def of(self, value: Any) -> Any:
        """The description of anything."""
        if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, Enum)):
            return value
        if any(value is other for other in self._within):
            return "itself"
        self._within.append(value)
        try:
            return self._of_object(value)
        finally:
            self._within.pop()

    def _of_object(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): self.of(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of(item) for item in value]
        if isinstance(value, (set, frozenset)):
            return sorted(map(self.of, value), key=lambda item: json.dumps(item, sort_keys=True))
        if isinstance(value, (np.ndarray, np.generic)):
            return self.of(value.tolist())
        if isinstance(value, functools.partial):
            return {"partial": self.of(value.func), "args": self.of(value.args), "keywords": self.of(value.keywords)}
        if isinstance(value, MethodType):
            return {"method": self.of(value.__func__), "of": self.of(value.__self__)}
        if isinstance(value, FunctionType):
            return f"{name_of(value)} (code {_digest(list(self._parts(value)))})"
        if isinstance(value, (type, BuiltinFunctionType)):
            return name_of(value)
        return self._of_instance(value)

    def _of_instance(self, value: Any) -> Any:
        if isinstance(value, gym.Env) and value.spec is not None:
            return {"env": value.spec.id, "kwargs": self.of(value.spec.kwargs)}
        text = repr(value)
        if not ADDRESS.search(text):
            return text
        # The text of object, which tells nothing but an address: what the object holds tells it from others
        state = getattr(value, "__dict__", None)
        if state and type(value).__repr__ is object.__repr__:
            return {"class": name_of(type(value)), **{name: self.of(item) for name, item in state.items()}}
        if self._strict:
            raise ValueError(
                f"{text} cannot be told from other objects of its class, {name_of(type(value))}, when models are looked for: "
                "give a function, or an object whose repr tells what it is made of"
            )
        return text

    def _parts(self, function: FunctionType) -> Iterator[Any]:
        """All that decides what a function does, as far as it holds it."""
        yield list(_code(function.__code__))
        yield self.of(function.__defaults__)
        yield self.of(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                yield self.of(cell.cell_contents)
            except ValueError as error:
                if self._strict and "cell is empty" not in str(error).lower():
                    raise
        for name in sorted(set(_globals(function.__code__))):
            value = function.__globals__.get(name)
            if _is_plain(value):
                yield name, self.of(value)
            elif isinstance(value, FunctionType):
                # Those of other modules are told by their names: a library may change what does not concern it
                yield name, self.of(value) if value.__module__ == function.__module__ else name_of(value)
            elif isinstance(value, (type, functools.partial)):
                yield name, self.of(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, (*value.keys(), *value.values())))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    return value is not None and isinstance(value, (bool, int, float, str, np.ndarray, np.generic))


def _code(code: CodeType) -> Iterator[Any]:
    """What is computed, without the places in the file where it is written."""
    yield code.co_code.hex()
    yield from (list(names) for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
    yield from (code.co_argcount, code.co_kwonlyargcount, code.co_flags)
    for constant in code.co_consts:
        yield list(_code(constant)) if inspect.iscode(constant) else _constant(constant)


def _constant(value: Any) -> Any:
    """A constant with its type: 1, 1.0 and True are equal."""
    if isinstance(value, frozenset):
        return sorted(map(repr, value))
    return [_constant(item) for item in value] if isinstance(value, tuple) else f"{type(value).__name__} {value!r}"


def _globals(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from _globals(constant)


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:DIGITS]
