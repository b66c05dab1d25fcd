"""
Social welfare: how agents' utilities add up, and for whom policies should do more.

A welfare W(u) of the agents' utilities is ascended by weighting each agent with dW/du_i in the objective of the representative
that serves it. Who serves whom does not depend on W: every agent goes where it is best off. To add one: a subclass of
:class:`Welfare`, and a line in :data:`WELFARES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_rmdp.common.arguments import LARGEST_COEFFICIENT, Number, check_keywords, keyword_names, most_alike, refusal, shown

#: Share of the mean utility that is added to utilities before they are divided by, so that nobody counts without end
FLOOR = 0.01

#: Share of the mean size of utilities by which worst-off agents are told from others, if no temperature is given
SOFTNESS = 0.05
#: Steps of a multiplier that what is missing now counts, beside the sum of what was missing
DAMPING = 10.0

#: Arguments of welfares that the model gives them
NOT_KEYWORDS = ("n_agents",)

#: Utilities and aversions to inequality whose powers and sums are finite
LARGEST_UTILITY, LARGEST_ALPHA = 1e30, 1e3


class Welfare(ABC):
    """
    What policies ascend together.

    Utilities are returns of episodes, so they are averaged over rollouts, and their gradient is taken at the average. It is
    divided by its mean, so that learning rates keep their meaning, and nobody counts less than ``1 / max_ratio`` of the one
    who counts most: a policy that forgets an agent altogether never learns that it could serve it.

    :param n_agents: number of agents n
    :param outside_options: what each agent can fall back on, a number or n of them, -inf for nothing: it has the larger of
        both, so that policies stop chasing agents who leave in any case
    :param minimum: what each agent is guaranteed, a number or n of them, -inf for no guarantee: agents who have less, outside
        options included, count more, by a Lagrange multiplier that grows as long as they do
    :param step: of the multipliers, per rollout and per share of the guarantee that is missing
    :param mixing: weight of the newest rollout in the average of utilities, in (0, 1]
    :param max_ratio: bound of the ratio of two agents' weights, at least 1
    :raises ValueError: if an argument is wrong
    """

    def __init__(
        self,
        n_agents: int,
        outside_options: float | Sequence[float] | np.ndarray | None = None,
        minimum: float | Sequence[float] | np.ndarray | None = None,
        step: float = 0.1,
        mixing: float = 0.3,
        max_ratio: float = 100.0,
    ):
        self.n_agents = n_agents
        self.step = Number(0, LARGEST_COEFFICIENT, above=True).check("step", step)
        self.mixing = Number(0, 1, above=True).check("mixing", mixing)
        self.max_ratio = Number(1, LARGEST_UTILITY).check("max_ratio", max_ratio)
        self.outside_options = _per_agent("outside_options", outside_options, n_agents)
        self.minimum = _per_agent("minimum", minimum, n_agents)
        #: Averages of utilities, what they were divided by to become averages, and multipliers, (3, n_agents), for a model's
        #: file; empty where agents count alike for ever
        self.state = th.empty(0)
        self.restore()

    def restore(self) -> None:
        """Go on with a state that came from a file, or, if it is that of another welfare, without one."""
        shape = (0 if self.is_plain else 3, self.n_agents)
        if self.state.shape != shape:
            self.state = th.zeros(shape, dtype=th.float64)
        self.state = self.state.cpu()

    @property
    def is_plain(self) -> bool:
        """Whether all agents count alike, whatever they have."""
        return False

    @abstractmethod
    def value(self, utilities: np.ndarray) -> float:
        """
        :param utilities: of all agents, (n_agents,)
        :return: their welfare, in the units of a utility: that of everybody, if all have the same
        """

    @abstractmethod
    def gradient(self, utilities: np.ndarray) -> np.ndarray:
        """
        :param utilities: of all agents, (n_agents,)
        :return: dW/du_i, or a multiple of it, at least 0, (n_agents,)
        """

    def observe(self, utilities: np.ndarray, weights: float | np.ndarray = 1.0) -> None:
        """
        Take note of what agents had in a rollout.

        :param utilities: of all agents, (n_agents,); nan where it is not known, which changes nothing
        :param weights: what the rollout counts for each agent, (n_agents,), see
            :func:`~sb3_rmdp.common.returns.rollout_weights`; with 0 it changes nothing, but where nothing is known yet
        :raises ValueError: if there is no such welfare of these utilities
        """
        if self.is_plain:
            return
        sums, weight, prices = self.state.numpy()
        weights = np.broadcast_to(np.asarray(weights, dtype=np.float64), (self.n_agents,))
        weights = np.where((weights <= 0.0) & (weight <= 0.0), 1.0, weights)
        known = np.isfinite(utilities) & (weights > 0.0)
        sums[known] += self.mixing * (weights[known] * utilities[known] - sums[known])
        weight[known] += self.mixing * (weights[known] - weight[known])
        averages = self.averages
        known = np.isfinite(averages)
        if known.any():
            self.gradient(self.enjoyed(averages[known], known))
        prices += self.step * self._missing()
        np.clip(prices, 0.0, self.max_ratio, out=prices)

    def _missing(self) -> np.ndarray:
        """
        How far what agents have, be it elsewhere, is below their guarantee, (n_agents,): in shares of the mean guarantee,
        negative where it is above; 0 for those without a guarantee, and where nothing is known.
        """
        missing = np.zeros(self.n_agents)
        if self.minimum is not None:
            averages = self.averages
            bound = np.isfinite(averages) & np.isfinite(self.minimum)
            scale = np.abs(self.minimum[bound]).mean() if bound.any() else 1.0
            missing[bound] = (self.minimum[bound] - self.enjoyed(averages[bound], bound)) / (scale or 1.0)
        return missing

    @property
    def averages(self) -> np.ndarray:
        """Utilities as they are known so far, (n_agents,); nan where nothing is."""
        sums, weight, _ = self.state.numpy()
        return np.divide(sums, weight, out=np.full(self.n_agents, np.nan), where=weight > 0)

    @property
    def multipliers(self) -> np.ndarray:
        """
        What agents count beside dW/du_i for the sake of their guarantee, (n_agents,).

        Sums of what was missing in every rollout, and more of what is missing now: sums alone come too late, and policies
        would swing around the guarantee for ever.
        """
        if self.is_plain:
            return np.zeros(self.n_agents)
        return np.clip(self.state[2].numpy() + DAMPING * self.step * self._missing(), 0.0, self.max_ratio)

    def enjoyed(self, utilities: np.ndarray, agents: np.ndarray | slice = slice(None)) -> np.ndarray:
        """
        :param utilities: what representatives give to agents, (m,)
        :param agents: which these are
        :return: what they have, their outside options included
        """
        return utilities if self.outside_options is None else np.maximum(utilities, self.outside_options[agents])

    def weights(self) -> np.ndarray | None:
        """
        What every agent counts in the objective of the representative that serves it.

        :return: (n_agents,), of mean 1; ``None`` if all count alike, as they do as long as one is not known
        """
        if self.is_plain:
            return None
        averages = self.averages
        if not np.isfinite(averages).all():
            return None
        weights = self.gradient(self.enjoyed(averages))
        if self.outside_options is not None:
            # 1 for who stays and 0 for who leaves, but those at the border are worth a try
            there = np.isfinite(self.outside_options)
            softness = self._softness(np.concatenate([averages, self.outside_options[there]]))
            distance = (averages - self.outside_options) / softness
            weights = weights / (1.0 + np.exp(np.clip(-distance, -50.0, 50.0)))
        mean = weights.mean()
        weights = (weights / mean if mean > 0 else np.ones(self.n_agents)) + self.multipliers
        weights = np.maximum(weights, weights.max() / self.max_ratio)
        return weights / weights.mean()

    def _softness(self, utilities: np.ndarray) -> float:
        return SOFTNESS * float(np.abs(utilities).mean()) or 1.0


class Utilitarian(Welfare):
    """The mean. Everybody counts alike, but for outside options and guarantees."""

    @property
    def is_plain(self) -> bool:
        return self.outside_options is None and self.minimum is None

    def value(self, utilities: np.ndarray) -> float:
        return float(utilities.mean())

    def gradient(self, utilities: np.ndarray) -> np.ndarray:
        return np.ones_like(utilities)


class AlphaFair(Welfare):
    """
    The power mean of exponent ``1 - alpha``: the mean at 0, the geometric mean at 1, the minimum at infinity.

    :param n_agents: number of agents
    :param alpha: aversion to inequality, at least 0
    :param shift: added to utilities, which must not be negative then
    :param kwargs: of every welfare
    """

    def __init__(self, n_agents: int, alpha: float = 1.0, shift: float = 0.0, **kwargs: Any):
        try:
            self.alpha = Number(0, LARGEST_ALPHA).read(alpha)
        except ValueError:
            raise refusal(
                "alpha", alpha, f"choose a number from 0 to {LARGEST_ALPHA:g}, and egalitarian for infinity"
            ) from None
        self.shift = Number(-LARGEST_UTILITY, LARGEST_UTILITY).check("shift", shift)
        super().__init__(n_agents, **kwargs)

    def _shifted(self, utilities: np.ndarray) -> np.ndarray:
        shifted = utilities + self.shift
        if (shifted < 0).any():
            agent, least = int(shifted.argmin()), float(utilities.min())
            raise ValueError(
                f"this welfare is one of utilities that are not negative, and the {agent}-th has {least:.6g}: "
                f"choose welfare_kwargs=dict(shift=...) of {-least:.6g} or more, not "
                f"shift={shown(self.shift)}"
            )
        return shifted

    def value(self, utilities: np.ndarray) -> float:
        shifted = self._shifted(utilities)
        with np.errstate(divide="ignore"):
            if self.alpha == 1.0:
                mean = np.exp(np.log(shifted).mean())
            else:
                mean = (shifted ** (1.0 - self.alpha)).mean() ** (1.0 / (1.0 - self.alpha))
        return float(mean - self.shift)

    def gradient(self, utilities: np.ndarray) -> np.ndarray:
        shifted = self._shifted(utilities)
        raised = shifted + FLOOR * shifted.mean()
        # Ratios are all that counts, and powers of large numbers would overflow; who all have nothing have the same
        return (raised / raised.min()) ** -self.alpha if raised.min() > 0 else np.ones_like(raised)


class Nash(AlphaFair):
    """
    The geometric mean: a percent more for one agent is as good as a percent more for another.

    :param n_agents: number of agents
    :param shift: added to utilities, which must not be negative then; minus what agents have without an agreement
    :param kwargs: of every welfare
    """

    def __init__(self, n_agents: int, shift: float = 0.0, **kwargs: Any):
        super().__init__(n_agents, alpha=1.0, shift=shift, **kwargs)


class Egalitarian(Welfare):
    """
    What the worst-off agent has. Those who have little more count as well, or policies would chase one agent after another.

    :param n_agents: number of agents
    :param temperature: difference of utilities at which an agent counts 1/e of another; by default a twentieth of their
        mean size
    :param kwargs: of every welfare
    """

    def __init__(self, n_agents: int, temperature: float | None = None, **kwargs: Any):
        self.temperature = Number(0, LARGEST_UTILITY, above=True, optional=True).check("temperature", temperature)
        super().__init__(n_agents, **kwargs)

    def value(self, utilities: np.ndarray) -> float:
        return float(utilities.min())

    def gradient(self, utilities: np.ndarray) -> np.ndarray:
        return np.exp((utilities.min() - utilities) / (self.temperature or self._softness(utilities)))


class Gini(Welfare):
    """
    A weighted mean of utilities in order, the worst-off agent first, with weights that do not rise.

    :param n_agents: number of agents
    :param rank_weights: of the worst-off agent, the second worst-off, ..., n of them, not rising; by default proportional to
        2 n - 1, 2 n - 3, ..., 1, which makes the mean times one minus the Gini coefficient
    :param kwargs: of every welfare
    """

    def __init__(self, n_agents: int, rank_weights: Sequence[float] | np.ndarray | None = None, **kwargs: Any):
        if rank_weights is None:
            rank_weights = np.arange(2 * n_agents - 1, 0, -2, dtype=np.float64)
        ranks = _per_agent("rank_weights", rank_weights, n_agents)
        assert ranks is not None
        if (ranks < 0).any() or (np.diff(ranks) > 0).any() or not ranks.sum() > 0:
            raise ValueError(
                "rank_weights must not be negative, nor rise, nor all be 0, as those of "
                f"rank_weights={shown(rank_weights)} are: the worst-off agent comes first"
            )
        self.rank_weights = ranks / ranks.sum()
        super().__init__(n_agents, **kwargs)

    def value(self, utilities: np.ndarray) -> float:
        return float(np.sort(utilities) @ self._ranks(len(utilities)))

    def gradient(self, utilities: np.ndarray) -> np.ndarray:
        # Who has the same counts the same: the mean of the weights of their ranks
        _, places, counts = np.unique(utilities, return_inverse=True, return_counts=True)
        sums = np.add.reduceat(self._ranks(len(utilities)), np.cumsum(counts) - counts)
        return (sums / counts)[places]

    def _ranks(self, n: int) -> np.ndarray:
        """Weights of the ranks of some of the agents, as long as others are not known."""
        return self.rank_weights if n == self.n_agents else self.rank_weights[:n] / self.rank_weights[:n].sum()


WELFARES: dict[str, type[Welfare]] = {
    "utilitarian": Utilitarian,
    "nash": Nash,
    "egalitarian": Egalitarian,
    "alpha_fair": AlphaFair,
    "gini": Gini,
}


def welfare_class(name: str) -> type[Welfare]:
    """
    :param name: one of :data:`WELFARES`
    :raises ValueError: if it is none
    """
    if not isinstance(name, str) or name not in WELFARES:
        alike = most_alike(name, WELFARES) if isinstance(name, str) else None
        meant = f", did you mean {alike!r}?" if alike else ""
        raise ValueError(f"welfare={shown(name)} is unknown: choose one of {sorted(WELFARES)}{meant}")
    return WELFARES[name]


def check_welfare_keywords(name: str, kwargs: dict[str, Any] | None) -> None:
    """
    :param name: one of :data:`WELFARES`
    :param kwargs: ``welfare_kwargs`` of a model
    :raises ValueError: if the name or the name of an argument is unknown
    """
    # Its own arguments and those of every welfare: what lies between, it sets itself
    parts = (keyword_names(cls, NOT_KEYWORDS, inherited=False) or [] for cls in (welfare_class(name), Welfare))
    check_keywords("welfare_kwargs", kwargs, list(dict.fromkeys(known for part in parts for known in part)), repr(name))


def make_welfare(name: str, n_agents: int, kwargs: dict[str, Any] | None = None) -> Welfare:
    """
    :param name: one of :data:`WELFARES`
    :param n_agents: number of agents
    :param kwargs: the welfare's own arguments, and those of every welfare
    :raises ValueError: if the name or an argument is unknown or wrong
    """
    check_welfare_keywords(name, kwargs)
    try:
        return welfare_class(name)(n_agents, **(kwargs or {}))
    except ValueError as error:
        raise ValueError(f"welfare_kwargs: {error}") from error


def gini_coefficient(utilities: np.ndarray) -> float:
    """
    :param utilities: of all agents, not negative, (n_agents,)
    :return: 0 if all have the same, up to 1 if one has everything; nan if nobody has anything or one has less
    """
    n, total = len(utilities), float(utilities.sum())
    if total <= 0.0 or (utilities < 0).any():
        return float("nan")
    ranks = np.arange(2 * n - 1, 0, -2) / n
    return 1.0 - float(np.sort(utilities) @ ranks) / total


def _per_agent(name: str, values: float | Sequence[float] | np.ndarray | None, n_agents: int) -> np.ndarray | None:
    """One number per agent, or as many as there are agents; +inf and nan are nobody's. ``None`` if nobody has one."""
    if values is None:
        return None
    array: np.ndarray | None
    try:
        array = np.asarray(values)
        # Integers of any length and fractions are objects; texts and flags are no numbers, whatever numpy makes of them
        array = array.astype(np.float64) if array.dtype.kind in "iufO" else None
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None:
        raise ValueError(f"{name}={shown(values)} is neither a number nor {n_agents} of them")
    said = f"{name}={shown(values)}"
    if array.shape not in ((), (n_agents,)):
        raise ValueError(f"{said}: {name} has shape {array.shape}: give one number, or {n_agents} of them, one for each agent")
    if np.isnan(array).any() or (array == np.inf).any():
        raise ValueError(f"{said}: {name} has entries that are nan or infinite: give numbers, and -inf where there is none")
    if (np.abs(array[np.isfinite(array)]) > LARGEST_UTILITY).any():
        raise ValueError(f"{said}: {name} has entries beyond {LARGEST_UTILITY:g}: give smaller numbers")
    return None if (array == -np.inf).all() else np.broadcast_to(array, (n_agents,)).copy()
