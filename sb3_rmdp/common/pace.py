"""How soon representatives do what an episode did, and what agents may count on until then."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch as th


class Pace(ABC):
    """What depends on whether actions can be repeated exactly."""

    @property
    @abstractmethod
    def n_searches(self) -> int:
        """Random sets of episodes from which a better choice is looked for, beside what is there."""

    @abstractmethod
    def price(self, rollouts_left: float) -> float:
        """
        :param rollouts_left: of the training; infinite before it has begun
        :return: what a move to a far place has to gain at least, in shares of what agents lose while they wait; infinite if
            nobody would arrive any more
        """

    @abstractmethod
    def imitates(self, stagnant: int, began: bool) -> bool:
        """
        :param stagnant: rollouts since a representative's group gained anything
        :param began: it has begun to imitate the episode before
        :return: whether it imitates the episode until it is there; who is on the way to a far place does so in any case
        """

    @abstractmethod
    def relied_on(self, on_the_way: np.ndarray, promised: bool) -> np.ndarray:
        """
        :param on_the_way: True for representatives that were sent far away, and still have time, (k,)
        :param promised: promises count
        :return: True for those on whose aims agents may rely, (k,)
        """

    @abstractmethod
    def counted_on(self, aimed: th.Tensor, own: th.Tensor, known: th.Tensor) -> th.Tensor:
        """
        :param aimed: what agents have of representatives that do what they aim at, (n_agents, k)
        :param own: what agents have of them now, (n_agents, k)
        :param known: True for representatives of whom that is known, (k,)
        :return: what agents count on, (n_agents, k)
        """


@dataclass(frozen=True)
class ByHeart(Pace):
    """
    Actions are countable: an episode can be repeated exactly, and imitating it brings its return soon.

    Moves are free. What is aimed at takes the place of what is done now: an agent that came for that would keep its
    representative at it, since its group would lose by the change.

    :param restarts: random sets of episodes from which a better choice is looked for
    :param stagnation: rollouts without a gain after which a representative imitates. If no more are left of the training,
        nobody is sent far away
    """

    restarts: int
    stagnation: int

    @property
    def n_searches(self) -> int:
        return self.restarts

    def price(self, rollouts_left: float) -> float:
        return 0.0 if rollouts_left > self.stagnation else np.inf

    def imitates(self, stagnant: int, began: bool) -> bool:
        # Whoever began goes on until it is there, although it gets better now
        return began or stagnant >= self.stagnation

    def relied_on(self, on_the_way: np.ndarray, promised: bool) -> np.ndarray:
        return np.ones(len(on_the_way), dtype=bool)

    def counted_on(self, aimed: th.Tensor, own: th.Tensor, known: th.Tensor) -> th.Tensor:
        return aimed


@dataclass(frozen=True)
class ByPractice(Pace):
    """
    Actions are continuous: no episode can be repeated exactly, and who is sent far away has to learn by itself.

    What is there is worth keeping, so that choices are looked for from there only. A move has to win back until the end what
    agents lose meanwhile. What nobody learns was luck: without promises it only tells which places are worth most, and agents
    do not rely on it. What is done now lasts for a while, so that they may count on that as well.

    :param patience: rollouts that a representative has to learn to serve a far place
    :param move_cost: share of what its agents would lose without it that a move has to gain at least
    """

    patience: int
    move_cost: float

    @property
    def n_searches(self) -> int:
        return 0

    def price(self, rollouts_left: float) -> float:
        if rollouts_left <= self.patience:
            return np.inf
        return max(self.move_cost, self.patience / (rollouts_left - self.patience))

    def imitates(self, stagnant: int, began: bool) -> bool:
        return False

    def relied_on(self, on_the_way: np.ndarray, promised: bool) -> np.ndarray:
        return on_the_way | promised

    def counted_on(self, aimed: th.Tensor, own: th.Tensor, known: th.Tensor) -> th.Tensor:
        return th.where(known, th.maximum(aimed, own), aimed)
