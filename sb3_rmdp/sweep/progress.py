"""How far the runs are that are underway: workers tell it, the sweep asks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Any

from sb3_rmdp.sweep.estimate import duration

#: Is told the share of a training that is done, from 0 to 1
Tell = Callable[[float], None]


class Board:
    """
    Where workers write down how far they are, a Ray actor, and what is known here of it.

    Nothing waits for it, and nothing but a bar depends on it: if it dies, Ray starts another one, and workers tell it again.

    :param ray: the module, connected
    """

    def __init__(self, ray: Any):
        # A class that can be found nowhere travels as it is, and its process need not import torch
        class Notes:
            def __init__(self) -> None:
                self.shares: dict[str, float] = {}

            def note(self, name: str, share: float) -> None:
                self.shares[name] = share

            def read(self) -> dict[str, float]:
                return self.shares

        self._ray = ray
        self._actor = ray.remote(num_cpus=0, max_restarts=-1)(Notes).remote()
        self._known: dict[str, float] = {}
        self._asked: Any = None

    def teller(self, name: str) -> Tell:
        """
        :param name: of an attempt at a run, and of no other one
        :return: for its worker, to whom it can be sent
        """
        return _Teller(self._actor, name)

    def done(self, names: Iterable[str]) -> float:
        """
        :param names: of attempts that are underway
        :return: the sum of their shares, as of a moment ago
        """
        if self._asked is None:
            self._asked = self._actor.read.remote()
        answered, _ = self._ray.wait([self._asked], timeout=0)
        if answered:
            self._asked = None
            # What was known before is good enough if it cannot answer
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._known = self._ray.get(answered[0])
        return sum(self._known.get(name, 0.0) for name in names)


class _Teller:
    """See :meth:`Board.teller`."""

    def __init__(self, actor: Any, name: str):
        self._actor, self._name = actor, name

    def __call__(self, share: float) -> None:
        self._actor.note.remote(self._name, share)


class Lines:
    """
    Where there is no terminal for a bar: a line whenever nothing has been said for a while.

    :param say: takes a line
    :param total: number of runs
    :param silence: seconds after which it is time for one
    """

    def __init__(self, say: Callable[[str], None], total: int, silence: float = 300.0):
        self._say, self._total, self._silence = say, total, silence
        self._start = self._said = time.monotonic()

    def note(self, done: float) -> None:
        """
        :param done: runs, those that are underway by their shares
        """
        now = time.monotonic()
        if now - self._said >= self._silence:
            passed = now - self._start
            left = f", {duration(passed * (self._total - done) / done)} left" if done > 0.0 else ""
            self._say(f"{done:.1f} of {self._total} runs after {duration(passed)}{left}")
            self._said = now

    def reset(self) -> None:
        """Something else was said."""
        self._said = time.monotonic()
