"""
What arguments may be: rules that read a value, or refuse it with its name, its value and what is allowed.

A rule is said once, as data, beside the thing that takes the argument: arguments of the model in
:mod:`sb3_rmdp.common.model_arguments`, those of assignments and welfares in their files. Numbers of numpy, and tensors of one
number, become Python's, which every file format and every device knows.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

#: Largest count that is taken: beyond it, a training would not end, and arrays could not be indexed
LARGEST_COUNT = 2**31 - 1

#: Largest size of a weight or coefficient: products of larger ones leave the range of float32
LARGEST_COEFFICIENT = 1e6

#: Characters of a value in an error
SHOWN = 120


def shown(value: Any) -> str:
    """
    :param value: anything
    :return: how it is written in an error: on one line, and not longer than a line
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # values of others may fail to tell what they are, as integers of 5000 digits do
        text = f"<{type(value).__name__}>"
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} ... {text[-SHOWN // 4 :]}"


def refusal(name: str, value: Any, why: str) -> ValueError:
    """
    :param name: of an argument
    :param value: that it was given
    :param why: what is allowed, or what is wrong
    :return: the error to raise
    """
    return ValueError(f"{name}={shown(value)}: {why}")


def plain(value: Any) -> Any:
    """
    :param value: anything
    :return: Python's own number for one of numpy, or for an array or tensor of no dimension; else the value
    """
    if isinstance(value, np.generic) or (getattr(value, "ndim", None) == 0 and hasattr(value, "item")):
        return value.item()
    return value


def _between(least: float | None, most: float | None, least_allowed: bool, most_allowed: bool) -> str:
    # Nobody wants to know of a bound that is only there for accidents
    least, most = (None if bound is None or abs(bound) >= LARGEST_COEFFICIENT else bound for bound in (least, most))
    low = "" if least is None else f"of at least {least:g}" if least_allowed else f"above {least:g}"
    high = "" if most is None else f"at most {most:g}" if most_allowed else f"below {most:g}"
    if least is not None and most is not None and least_allowed and most_allowed:
        return f" from {least:g} to {most:g}"
    return "".join(f" {part}" for part in (low, "and" if low and high else "", high) if part)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """
    What an argument may be.

    :param optional: whether ``None`` is allowed
    """

    optional: bool = False

    @property
    def allowed(self) -> str:
        """What may be given, as the end of a sentence."""
        raise NotImplementedError

    def read(self, value: Any) -> Any:
        """
        :param value: anything but ``None``
        :return: the value as it is used
        :raises ValueError: if it is not allowed; a text, if there is one, says more than :attr:`allowed`
        """
        raise NotImplementedError

    def check(self, name: str, value: Any) -> Any:
        """
        :param name: of the argument
        :param value: that it was given
        :return: the value as it is used
        :raises ValueError: with the name, the value, and what is allowed
        """
        if value is None and self.optional:
            return None
        try:
            return self.read(value)
        except ValueError as error:
            raise refusal(name, value, str(error) or f"give {self.allowed}{', or None' * self.optional}") from None


@dataclass(frozen=True)
class Number(Rule):
    """
    A finite number.

    :param least: lower bound
    :param most: upper bound
    :param above: whether the lower bound itself is left out
    :param below: whether the upper bound itself is left out
    :param infinite: whether infinity is allowed, where there is no upper bound
    """

    least: float | None = None
    most: float | None = None
    above: bool = False
    below: bool = False
    infinite: bool = False

    @property
    def allowed(self) -> str:
        return f"a number{_between(self.least, self.most, not self.above, not self.below)}"

    def read(self, value: Any) -> float:
        number = plain(value)
        if isinstance(number, bool) or not isinstance(number, Real):
            raise ValueError
        try:
            number = number if isinstance(number, (int, float)) else float(number)
            size = float(number)
        except (OverflowError, ArithmeticError):
            size = math.inf
        if math.isnan(size) or (math.isinf(size) and not (self.infinite and size > 0 and isinstance(number, float))):
            raise ValueError(f"it is not finite, give {self.allowed}")
        for bound, beyond in (
            (self.least, self.least is not None and (size <= self.least if self.above else size < self.least)),
            (self.most, self.most is not None and (size >= self.most if self.below else size > self.most)),
        ):
            if beyond:
                raise ValueError(
                    f"it is beyond {bound:g}, give {self.allowed}" if abs(bound or 0) >= LARGEST_COEFFICIENT else ""
                )
        return number


@dataclass(frozen=True)
class Count(Rule):
    """
    An integer.

    :param least: smallest allowed
    :param most: largest allowed
    :param flags: whether True and False count as 1 and 0
    """

    least: int = 1
    most: int = LARGEST_COUNT
    flags: bool = False

    @property
    def allowed(self) -> str:
        return f"an integer of at least {self.least}" + ("" if self.most == LARGEST_COUNT else f" and at most {self.most}")

    def read(self, value: Any) -> int:
        number = plain(value)
        if not isinstance(number, Integral) or (isinstance(number, bool) and not self.flags):
            raise ValueError
        number = int(number)
        if number > self.most:
            raise ValueError("it is beyond 2**31, give " + self.allowed if self.most == LARGEST_COUNT else "")
        if number < self.least:
            raise ValueError
        return number


@dataclass(frozen=True)
class Flag(Rule):
    """True or False; 1 and 0 do as well."""

    @property
    def allowed(self) -> str:
        return "True or False"

    def read(self, value: Any) -> bool:
        flag = plain(value)
        if not isinstance(flag, Integral) or flag not in (0, 1):
            raise ValueError
        return bool(flag)


@dataclass(frozen=True)
class Text(Rule):
    """A text without the characters that no file name has."""

    @property
    def allowed(self) -> str:
        return "a text"

    def read(self, value: Any) -> str:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError
        return value


@dataclass(frozen=True)
class Keywords(Rule):
    """A mapping of names to values; of which names is another question, see :func:`check_keywords`."""

    @property
    def allowed(self) -> str:
        return "a dict of argument names and values"

    def read(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError
        return value if isinstance(value, dict) else dict(value)


@dataclass(frozen=True)
class Read(Rule):
    """
    Whatever a function takes.

    :param function: returns the value as it is used, and raises a ValueError if it is not allowed
    :param text: what may be given
    """

    function: Callable[[Any], Any] = plain
    text: str = "another value"

    @property
    def allowed(self) -> str:
        return self.text

    def read(self, value: Any) -> Any:
        return self.function(value)


@dataclass(frozen=True)
class Scheduled(Rule):
    """
    A number, or a function of the progress that remains, from 1 to 0, which returns one.

    :param number: what the number may be
    :param numbers: what the numbers of a schedule may be, if that is something else
    """

    number: Number = Number()
    numbers: Number | None = None

    @property
    def allowed(self) -> str:
        return f"{self.number.allowed}, or a schedule such as LinearSchedule(5e-2, 1e-3, 1.0)"

    def read(self, value: Any) -> Any:
        if callable(value) and not isinstance(value, type):
            self.value_at(value, 1.0)
            return value
        try:
            return self.number.read(value)
        except ValueError as error:
            raise ValueError(str(error).replace(self.number.allowed, self.allowed)) from None

    def value_at(self, schedule: Callable[[float], Any], progress_remaining: float) -> float:
        """
        :param schedule: a schedule
        :param progress_remaining: share of the training that is left
        :return: its value there
        :raises ValueError: if it fails, or returns something else than a number that is allowed
        """
        where = f"at progress_remaining={progress_remaining:g} the schedule"
        try:
            value = schedule(progress_remaining)
        except Exception as error:  # schedules of others may raise anything
            raise ValueError(f"{where} raises {type(error).__name__}: {error}") from error
        rule = self.numbers or self.number
        try:
            return rule.read(value)
        except ValueError:
            raise ValueError(f"{where} returns {shown(value)}, it must return {rule.allowed}") from None


def check_all(rules: Mapping[str, Rule], values: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param rules: of arguments, by name
    :param values: of arguments, by name; those without a rule are left as they are
    :return: the values as they are used
    :raises ValueError: if one is not allowed
    """
    return {name: rules[name].check(name, value) if name in rules else value for name, value in values.items()}


def most_alike(name: Any, known: Iterable[str]) -> str | None:
    """
    :param name: what somebody wrote
    :param known: names that there are
    :return: the one that is most like it; ``None`` if none is
    """
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return close[0] if close else None


def check_name(name: Any, known: Iterable[str], what: str) -> None:
    """
    :param name: what somebody wrote
    :param known: names that there are
    :param what: what the name is not, for the message
    :raises ValueError: if it is none of them; names the one most like it
    """
    known = list(known)
    if name not in known:
        alike = most_alike(name, known)
        raise ValueError(f"{name!r} is {what}: " + (f"did you mean {alike!r}?" if alike else f"choose among {sorted(known)}"))


def keyword_names(cls: type, without: Iterable[str] = (), inherited: bool = True) -> list[str] | None:
    """
    :param cls: a class
    :param without: names that it is given from somewhere else
    :param inherited: whether it may hand on ``**kwargs`` to its base classes
    :return: names of its constructor's arguments; ``None`` if there is no telling
    """
    names: dict[str, None] = {}
    kinds = inspect.Parameter
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        if base is object:
            return None
        try:
            parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        except (TypeError, ValueError):
            return None
        names.update((one.name, None) for one in parameters if one.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY))
        if not inherited or not any(one.kind is kinds.VAR_KEYWORD for one in parameters):
            break
    return [name for name in names if name not in ("self", *without)]


def check_keywords(name: str, given: Any, known: list[str] | None, whose: str) -> None:
    """
    :param name: of the argument that holds the keywords, such as ``assignment_kwargs``
    :param given: the keywords, or ``None``
    :param known: names of arguments that there are; ``None`` if there is no telling
    :param whose: who takes them, for the message
    :raises ValueError: if they are no mapping, or one of them is unknown
    """
    Keywords(optional=True).check(name, given)
    unknown = [] if known is None else sorted(set(given or {}) - set(known))
    if unknown:
        alike = most_alike(unknown[0], known or [])
        meant = f"; did you mean {alike!r}?" if alike else ""
        raise ValueError(f"{name} has {unknown}, which {whose} does not know: it takes {known}{meant}")
