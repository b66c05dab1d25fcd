"""Episodes of a training that are worth remembering, each of which is a candidate for what a representative may do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th

from sb3_rmdp.common.trajectories import MEMORY, Trajectory, joined, nearly_equal

#: Length of reward vectors up to which returns are remembered in double precision
PRECISE = 1024


class Episode:
    """
    An episode and what it paid.

    :param returns: what it paid every agent, or every reward feature, (n_rewards,)
    :param trajectory: what was seen and done in it, and what its steps paid
    :param utilities: what those agents had of the episode by whom episodes are compared, (n_compared,)
    :param moment: what its best step paid, (n_rewards,): the one that was best for the agent whom it served best on the whole
    """

    def __init__(self, returns: np.ndarray, trajectory: Trajectory, utilities: np.ndarray, moment: np.ndarray):
        self.returns, self.utilities, self.moment = returns, utilities, moment
        #: Without rewards, which are many numbers
        self.trajectory = trajectory._replace(reward_vectors=trajectory.reward_vectors[:0].copy())
        #: Equal for episodes in which the same was done
        self.key = trajectory.actions.tobytes()
        self.n_samples = 1

    def add_sample(self, other: Episode) -> bool:
        """
        Returns become the mean over all episodes in which the same was done.

        :param other: one more of them
        :return: whether it paid the same, but for rounding
        """
        same = nearly_equal(other.returns, self.returns)
        self.n_samples += 1
        self.returns = self.returns + (other.returns - self.returns) / self.n_samples
        self.utilities = self.utilities + (other.utilities - self.utilities) / self.n_samples
        return same

    def fields(self) -> tuple[Any, ...]:
        """All of it, as arrays that nobody writes to."""
        return tuple(self.trajectory), self.returns, self.utilities, self.moment, self.n_samples

    @classmethod
    def of_fields(cls, fields: tuple[Any, ...]) -> Episode:
        """
        :param fields: from :meth:`fields`
        :return: the episode
        """
        trajectory, returns, utilities, moment, n_samples = fields
        episode = cls(returns, Trajectory(*trajectory), utilities, moment)
        episode.n_samples = n_samples
        return episode

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.trajectory.nbytes + self.returns.nbytes + self.utilities.nbytes + self.moment.nbytes

    def own_memory(self) -> None:
        """Copy what belongs to a rollout; numbers of many agents in single precision, of which there are two each."""
        precision = np.float64 if len(self.returns) <= PRECISE else np.float32
        self.returns, self.moment = (
            array.astype(precision) if array.base is not None or array.dtype != precision else array
            for array in (self.returns, self.moment)
        )

    def state(self) -> dict[str, Any]:
        """All of it as tensors."""
        seen = self.trajectory.observations
        observations = {key: th.as_tensor(x) for key, x in seen.items()} if isinstance(seen, dict) else th.as_tensor(seen)
        arrays = {name: th.as_tensor(getattr(self, name)) for name in ("returns", "utilities", "moment")}
        actions = th.as_tensor(self.trajectory.actions)
        return {**arrays, "observations": observations, "actions": actions, "n_samples": self.n_samples}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Episode:
        """
        :param state: from :meth:`state`
        :return: the episode
        """
        seen = state["observations"]
        returns, utilities, moment = (state[name].cpu().numpy() for name in ("returns", "utilities", "moment"))
        observations = {key: x.cpu().numpy() for key, x in seen.items()} if isinstance(seen, dict) else seen.cpu().numpy()
        trajectory = Trajectory(observations, state["actions"].cpu().numpy(), np.empty((0, len(returns)), dtype=np.float32))
        episode = cls(returns, trajectory, utilities, moment)
        episode.n_samples = state["n_samples"]
        return episode


class Archive:
    """
    A bounded number of episodes, none of which another one beats, or a newer one equals, for every agent.

    :param size: number of episodes that are kept at most
    :param nbytes: memory that they take at most; one episode is kept in any case
    """

    def __init__(self, size: int, nbytes: int = MEMORY):
        self.size, self.nbytes = size, nbytes
        self.episodes: list[Episode] = []
        #: Whether the same was ever done again, and led elsewhere or paid something else
        self.varies = False
        self._latest: Trajectory | None = None

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def is_full(self) -> bool:
        """Whether there are more episodes than are to be kept."""
        memory = sum(episode.nbytes for episode in self.episodes)
        return len(self.episodes) > self.size or memory > self.nbytes

    def get_state(self) -> dict[str, Any]:
        """
        :return: all episodes, and the one that was seen last
        """
        latest = None if self._latest is None else tuple(self._latest)
        return {"episodes": [episode.fields() for episode in self.episodes], "latest": latest, "varies": self.varies}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        :param state: from :meth:`get_state`
        """
        self.episodes = [Episode.of_fields(fields) for fields in state["episodes"]]
        self._latest = None if state["latest"] is None else Trajectory(*state["latest"])
        self.varies = state["varies"]

    def add(self, episodes: Sequence[Episode], aims: Sequence[Episode] = ()) -> None:
        """
        :param episodes: new ones
        :param aims: some that may be here no more, but are to know what it pays to do the same again
        """
        known = {episode.key: episode for episode in self.episodes}
        elsewhere = [aim for aim in aims if known.get(aim.key) is not aim]
        for episode in episodes:
            self.varies = self.varies or (self._latest is not None and not self._latest.agrees_with(episode.trajectory))
            self._latest = episode.trajectory
            same = [aim for aim in elsewhere if aim.key == episode.key]
            if episode.key in known:
                same.append(known[episode.key])
            else:
                known[episode.key] = episode
            for other in same:
                self.varies |= not other.add_sample(episode)
        candidates = list(known.values())
        if candidates:
            # Of equal ones the newest is kept: what has been tried for long is not all that is as good
            kept = undominated(np.array([episode.utilities for episode in candidates[::-1]]))
            self.episodes = [candidates[-1 - i] for i in kept[::-1]]
            for episode in self.episodes:
                episode.own_memory()

    def detours(self, group: np.ndarray, way: Trajectory, count: int) -> Trajectory | None:
        """
        What other good episodes do where they are off the way of one. Whoever learned them as well comes to a good end if it
        strays: beyond episodes that are nearly as good better ones are found, and not in the unknown.

        After "Self-imitation learning" (Oh et al., 2018), where what was good is learned again wherever it was.

        :param group: True for the agents whom they are to be good for, (n_compared,)
        :param way: the one episode
        :param count: how many episodes count, those that pay the group most
        :return: of episodes that begin as it does, each observation that is not among its own, with the action of the best
            of them; ``None`` if there is none. Where no two observations are equal, there never is
        """
        best = sorted(self.episodes, key=lambda episode: -episode.utilities[group].sum())[:count]
        seen, pieces = set(way.observation_keys()), []
        for trajectory in (episode.trajectory for episode in best):
            keys = trajectory.observation_keys()
            if keys[0] in seen:
                # Of what is seen twice, what was done the last time: that led on
                new = {key: step for step, key in enumerate(keys) if key not in seen}
                pieces.append(trajectory.steps(list(new.values())))
                seen.update(new)
        return joined(pieces) if any(len(piece.actions) for piece in pieces) else None

    def forget(self, unwanted: np.ndarray) -> None:
        """
        :param unwanted: True for episodes to forget, (n_episodes,)
        """
        self.episodes = [episode for episode, gone in zip(self.episodes, unwanted, strict=True) if not gone]

    def keep_best(self, scores: np.ndarray) -> None:
        """
        Forget the episodes with the lowest scores, if there are too many.

        :param scores: (n_episodes,)
        """
        order = np.argsort(-scores, kind="stable")
        memory = np.cumsum([self.episodes[i].nbytes for i in order])
        unwanted = np.zeros(len(self.episodes), dtype=bool)
        unwanted[order[self.size :]] = True
        unwanted[order[1:][memory[1:] > self.nbytes]] = True
        self.forget(unwanted)


def undominated(utilities: np.ndarray) -> list[int]:
    """
    :param utilities: (n_episodes, n_agents)
    :return: positions of the rows that no other row equals or exceeds everywhere, of equal ones the first, in their order
    """
    order = np.argsort(-utilities.sum(axis=1), kind="stable")
    kept: list[int] = []
    rows = np.empty_like(utilities)
    for i in order:
        if not (rows[: len(kept)] >= utilities[i]).all(axis=1).any():
            rows[len(kept)] = utilities[i]
            kept.append(int(i))
    return sorted(kept)


def best_places(utilities: np.ndarray) -> np.ndarray:
    """
    :param utilities: (n_episodes, n_agents)
    :return: the best place of every row among all rows, whatever the column, (n_episodes,): 0 for the largest of some column
    """
    order = np.argsort(-utilities, axis=0, kind="stable")
    return np.argsort(order, axis=0, kind="stable").min(axis=1)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """
    :param a: (p, n)
    :param b: (q, n)
    :return: cosines of their rows, (p, q); 0 where a row is
    """
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (a, b))
    return a @ b.T
