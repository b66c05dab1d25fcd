"""What is measured: rows of the table with their targets, and curves. Nothing heavy is imported here, see ``__main__``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

VELOCITY = "rmdp/HalfCheetahVelocity-v0"
GATHERING = "rmdp/ResourceGathering-v0"

#: One update: transitions per policy, transitions per policy and minibatch, epochs. All else are defaults.
WORK: dict[str, Any] = {"n_steps": 2048, "batch_size": 64, "n_epochs": 10}
#: To see whether everything runs
QUICK_WORK = {"n_steps": 64, "batch_size": 32, "n_epochs": 2}

#: Updates before any is timed: assignments choose after a few
WARM_UP = 10

#: Outputs of a critic of low rank
RANK = 32
#: Features of factored rewards, as many as velocity tasks recommend
FEATURES = 111


@dataclass(frozen=True)
class Case:
    """
    A training whose updates are timed. Rows and curves that share one share its measurement.

    :param k: number of representatives
    :param n: number of agents
    :param critic_rank: argument of RepresentedPPO
    :param n_features: argument of the environment: features that rewards are factored into
    :param env: gymnasium id
    :param device: of the networks
    :param threads: of MuJoCo and of torch; by default as many as the vec env and torch take by themselves
    """

    k: int
    n: int
    critic_rank: int | None = None
    n_features: int | None = None
    env: str = VELOCITY
    device: str = "cpu"
    threads: int | None = None


@dataclass(frozen=True)
class Row:
    """
    A line of the table.

    :param name: by which ``--rows`` chooses it
    :param case: what is timed
    :param bound: without ``base``, how many times faster than k stock PPOs it is to be, at least; with it, how many times
        as long as ``base`` it may take, at most
    :param base: another case to compare it with
    :param memory: peak memory of the process that is allowed, in GB
    :param repeats: updates timed of either side
    """

    name: str
    case: Case
    bound: float
    base: Case | None = None
    memory: float | None = None
    repeats: int = 3

    def met(self, ratio: float, memory: float) -> bool:
        """
        :param ratio: how many times faster it is or, with ``base``, how many times as long it takes
        :param memory: peak memory in GB
        :return: whether the targets are met
        """
        in_time = ratio >= self.bound if self.base is None else ratio <= self.bound
        return in_time and (self.memory is None or memory < self.memory)

    def target(self) -> str:
        """The targets in words."""
        words = f"≥ {self.bound:g}" if self.base is None else f"≤ {self.bound:g} times n = {self.base.n}"
        return words if self.memory is None else f"{words}, < {self.memory:g} GB"


HUNDRED = Case(5, 100)
ROWS = (
    Row("5x100", HUNDRED, 9.0, repeats=5),
    Row("50x100", Case(50, 100), 12.0),
    Row("50x1000", Case(50, 1000), 8.0, memory=2.5),
    Row("50x1000-rank", Case(50, 1000, critic_rank=RANK), 14.0),
    Row("50x1000-factored", Case(50, 1000, n_features=FEATURES), 14.0),
    Row("1x1", Case(1, 1), 1.0, repeats=7),
    Row("5x10000-rank", Case(5, 10_000, critic_rank=RANK), 2.0, base=HUNDRED, memory=8.0),
    Row("5x10000-factored", Case(5, 10_000, n_features=FEATURES), 2.0, base=HUNDRED, memory=8.0),
    Row("5x1000000-factored", Case(5, 1_000_000, n_features=FEATURES), 4.0, base=HUNDRED, memory=8.0),
    Row("gathering", Case(3, 25, env=GATHERING), 8.0, repeats=7),
)


@dataclass(frozen=True)
class Curve:
    """
    Cost against one quantity.

    :param name: by which ``--curves`` chooses it
    :param title: in words
    :param x: name of the quantity, an attribute of the cases
    :param cases: one per point, by rising x
    """

    name: str
    title: str
    x: str
    cases: tuple[Case, ...]

    def values(self) -> list[int]:
        """The quantity at every point."""
        return [getattr(case, self.x) for case in self.cases]


def _agents(counts: Sequence[int], **kwargs: Any) -> tuple[Case, ...]:
    return tuple(replace(HUNDRED, n=n, **kwargs) for n in counts)


def curves(cores: int) -> tuple[Curve, ...]:
    """
    :param cores: of the machine
    :return: all curves
    """
    threads = sorted({*(2**power for power in range(cores.bit_length()) if 2**power <= cores), cores})
    return (
        Curve(
            "n-factored", "n agents, factored rewards", "n", _agents((100, 1000, 10_000, 100_000, 10**6), n_features=FEATURES)
        ),
        Curve("n-rank", f"n agents, vectors, critic_rank={RANK}", "n", _agents((100, 1000, 10_000), critic_rank=RANK)),
        Curve("n-full", "n agents, vectors, n critic outputs", "n", _agents((100, 1000, 10_000))),
        Curve("k", "k policies", "k", tuple(Case(k, 100) for k in (1, 5, 20, 50, 100))),
        Curve("cores", "threads", "threads", tuple(Case(50, 100, threads=count) for count in threads)),
    )


def exponent(x: Sequence[float], y: Sequence[float]) -> float | None:
    """
    :param x: positive numbers
    :param y: what was measured there, positive
    :return: a of the least-squares fit of y = c * x^a in logarithms; ``None`` for fewer than two points
    """
    if len(set(x)) < 2:
        return None
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
