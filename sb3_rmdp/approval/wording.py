"""Numbers, counts and lists of agents as text."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from sb3_rmdp.approval.findings import Findings
from sb3_rmdp.approval.html import Markup, element

#: Ranges of agents that a line lists
MAX_RANGES = 60
NOT_KNOWN = "-"


class Numbers:
    """
    Numbers as text, with so many digits that utilities are told apart.

    :param findings: whose utilities these are
    """

    def __init__(self, findings: Findings):
        size = float(np.abs(findings.result.agent_utilities).mean())
        self.digits = 2 if size >= 1.0 or size == 0.0 else min(8, 2 - math.floor(math.log10(size)))

    def __call__(self, value: float | None) -> str:
        return NOT_KNOWN if value is None or math.isnan(value) else f"{self._round(value):.{self.digits}f}"

    def signed(self, value: float) -> str:
        """With its sign, for differences."""
        return NOT_KNOWN if math.isnan(value) else f"{self._round(value):+.{self.digits}f}"

    def interval(self, value: float, half: float, signed: bool = False) -> str:
        """With half of its interval, if that is known."""
        told = self.signed(value) if signed else self(value)
        return told if math.isnan(value) or math.isnan(half) else f"{told} ± {self(half)}"

    def _round(self, value: float) -> float:
        return round(value, self.digits) + 0.0  # no minus before a zero


def ranges(agents: np.ndarray) -> str:
    """
    >>> ranges(np.array([0, 1, 2, 5, 7, 8]))
    '0-2, 5, 7-8'

    :param agents: ascending indices, (m,), m at least 1
    :return: the same in short
    """
    breaks = [0, *(np.flatnonzero(np.diff(agents) > 1) + 1).tolist(), len(agents)]
    parts = [(int(agents[start]), int(agents[stop - 1])) for start, stop in pairwise(breaks)]
    told = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts[:MAX_RANGES])
    return told if len(parts) <= MAX_RANGES else f"{told}, and others up to {parts[-1][1]}"


def count(number: int, one: str, many: str) -> str:
    """
    >>> count(1, "agent", "agents"), count(2, "agent", "agents")
    ('1 agent', '2 agents')

    :param number: how many
    :param one: word for one
    :param many: word for any other number
    :return: number and word
    """
    return f"{number} {one if number == 1 else many}"


def code(content: object) -> Markup:
    """
    :param content: a name or value of a program
    :return: set as such
    """
    return element("code", content)


def spaced(number: int) -> str:
    """
    >>> spaced(1850000)
    '1 850 000'

    :param number: a large one
    :return: its digits in groups of three
    """
    return f"{number:,}".replace(",", " ")
