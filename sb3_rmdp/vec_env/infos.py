"""The infos of one step of all environments, of which each is made only if somebody looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import numpy as np

from sb3_rmdp.envs.contract import REWARD_VECTOR


class BatchInfos(Sequence[dict[str, Any]]):
    """
    Stands in for the list of info dicts that a vec env returns.

    Learning needs the reward vectors of every environment at every step (or the reward features, if rewards are factored),
    but of the rest of the infos only those of episodes that have just ended. The vectors are therefore kept as one array, and
    the dict of an environment is made when it is first looked at. It is kept from then on, so that what a wrapper writes into
    it stays there. Slices, copies and pickles are plain lists of dicts.

    :param reward_vectors: (n_envs, n_agents) float32 rewards of this step, or (n_envs, m) features, an array that nobody else
        writes to
    :param build: what is in the info of an environment, given its index, but for its row of that array; called at most once
        per environment, at any later time, so that it must not depend on what the environment does next
    :param key: under which a row stands in the info of its environment: ``"reward_vector"``, or ``"reward_features"``
    """

    def __init__(self, reward_vectors: np.ndarray, build: Callable[[int], dict[str, Any]], key: str = REWARD_VECTOR):
        #: Key of the info of an environment under which its row of the array stands.
        self.key = key
        self._vectors = reward_vectors
        self._build = build
        self._infos: dict[int, dict[str, Any]] = {}
        # The very rows that went into the infos: another object there means that somebody has put other rewards in
        self._rows: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[env] for env in range(*index.indices(len(self)))]
        env = self._position(index)
        info = self._infos.get(env)
        if info is None:
            info = self._build(env)
            self._rows[env] = info[self.key] = self._vectors[env]
            self._infos[env] = info
        return info

    def __setitem__(self, index: int, info: dict[str, Any]) -> None:
        env = self._position(index)
        self._infos[env] = info
        self._rows[env] = self._vectors[env]

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"

    def _position(self, index: int) -> int:
        """
        :param index: of an environment; negative ones count from the end, as in a list
        :return: the same from 0 to n_envs - 1
        :raises IndexError: if there is no such environment
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"env {index}: there are infos of {len(self)} environments")
        return int(index) % len(self)

    @property
    def reward_vectors(self) -> np.ndarray | None:
        """
        (n_envs, n_agents) rewards or (n_envs, m) features, float32; None if somebody has put others into an info, which count
        then.
        """
        for env, row in self._rows.items():
            if self._infos[env].get(self.key) is not row:
                return None
        return self._vectors

    def looked_at(self, also: Iterable[int] = ()) -> list[int]:
        """
        Environments whose infos may hold more than the environment put in.

        :param also: environments to be named in any case
        :return: indices in ascending order
        """
        return sorted({*self._infos, *map(int, also)})
