"""What every agent pays for each reward feature, held once in a process."""

from functools import cached_property
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np

from sb3_rmdp.envs.contract import fingerprint


class RewardWeights:
    """
    The weights ``w`` of a factored environment, whose agents earn ``r^i = w_i . phi`` by a transition with features ``phi``.

    A million agents have hundreds of megabytes of weights, and every copy of an environment needs them. So ``RewardWeights``
    of equal numbers are one and the same object for as long as somebody holds it: when it is called again, copied, or loaded
    in a process that has it already. Hold the object, and give its ``array`` as ``reward_weights`` of the environment.

    Example::

        >>> weights = RewardWeights([[1.0, 0.0], [0.5, 0.5]])
        >>> weights is RewardWeights([[1.0, 0.0], [0.5, 0.5]])
        True
        >>> float(weights.mean_reward(np.array([2.0, 4.0])))  # the mean of 2 and 3
        2.5

    :param weights: (n_agents, m) finite numbers, one row per agent and one column per feature, at least one of either; copied
        unless it is a ``float32`` array that is read-only. Another ``RewardWeights`` is returned as it is
    :raises ValueError: if these are no such numbers
    """

    _held: ClassVar["WeakValueDictionary[int, RewardWeights]"] = WeakValueDictionary()

    #: (n_agents, m) float32, read-only.
    array: np.ndarray
    #: (m,) float64, mean over the agents.
    mean: np.ndarray

    def __new__(cls, weights: Any) -> "RewardWeights":
        if isinstance(weights, RewardWeights):
            return weights
        array = _numbers(weights)
        for held in list(cls._held.values()):
            if held.array is array or np.array_equal(held.array, array):
                return held
        if array.flags.writeable:
            array = array.copy()
            array.setflags(write=False)
        self = super().__new__(cls)
        self.array = array
        self.mean = array.mean(axis=0, dtype=np.float64)
        cls._held[id(self)] = self
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return RewardWeights, (self.array,)

    def __copy__(self) -> "RewardWeights":
        return self

    def __deepcopy__(self, memo: Any) -> "RewardWeights":
        return self

    @cached_property
    def population_id(self) -> str:
        """Who the agents are, as far as the weights tell: other numbers have another name."""
        return fingerprint("weights", self.array)

    def mean_reward(self, features: np.ndarray) -> Any:
        """
        What the mean agent earns, in double precision.

        :param features: (..., m) features of one transition, or of many
        :return: (...) float64, of one transition a number
        """
        # Not a matrix product, whose last bits depend on how many transitions there are
        return np.add.reduce(self.mean * features, axis=-1)


def _numbers(weights: Any) -> np.ndarray:
    """
    :param weights: what the user gave
    :return: the same in float32 and in C order, not copied if it is so already
    :raises ValueError: if it is not (n_agents, m) finite numbers
    """
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
            array = np.asarray(weights, dtype=np.float32, order="C")
    except (TypeError, ValueError):
        raise ValueError(f"reward_weights={weights!r} are no numbers; give one row of weights per agent") from None
    if array.ndim != 2 or not array.size:
        raise ValueError(
            f"reward_weights have shape {array.shape}; give one row per agent and one column per feature, shape (n_agents, m)"
        )
    if not np.isfinite(array).all():
        agent, feature = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ValueError(
            f"reward_weights of agent {agent} hold {array[agent, feature]} for feature {feature}; give finite float32 weights"
        )
    return array
