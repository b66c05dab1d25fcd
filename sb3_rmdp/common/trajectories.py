"""What was seen and done in each episode, cut out of rollouts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Observations: TypeAlias = np.ndarray | dict[str, np.ndarray]


#: Memory for observations and actions of episodes: of all that are remembered, and of one that has not ended
MEMORY = 2**26

#: Rewards of an episode that are kept of a rollout in which it does not end: there are as many numbers as agents in each
KEPT_ROWS = 64


class Trajectory(NamedTuple):
    """
    An episode as its representative saw it.

    :param observations: raw observations, ``(steps, *observation shape)``, or a dict of such arrays
    :param actions: actions as the policy gave them, not clipped, (steps, actions)
    :param reward_vectors: what steps paid, (rows, n_rewards): of every step of the last rollout that the episode ran in, and
        of some of those before
    :param truncated: it was ended by a time limit, and not by what was done
    """

    observations: Observations
    actions: np.ndarray
    reward_vectors: np.ndarray
    truncated: bool = False

    @property
    def arrays(self) -> list[np.ndarray]:
        """Observations, (steps, ...) each, by their names if they have some."""
        seen = self.observations
        return [seen[name] for name in sorted(seen)] if isinstance(seen, dict) else [seen]

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.actions.nbytes + self.reward_vectors.nbytes + sum(array.nbytes for array in self.arrays)

    def observation_keys(self) -> list[bytes]:
        """For every step, what is the same wherever the same was observed."""
        return [b"".join(array[step].tobytes() for array in self.arrays) for step in range(len(self.actions))]

    def agrees_with(self, other: Trajectory) -> bool:
        """
        :param other: of the same environment
        :return: whether the same was seen, but for rounding, as long as the same was done: not so, where chance has a part
        """
        n_steps = min(len(self.actions), len(other.actions))
        differs = np.flatnonzero((self.actions[:n_steps] != other.actions[:n_steps]).any(axis=1))
        if not len(differs) and len(self.actions) != len(other.actions):
            return False  # one of them went on
        seen = differs[0] + 1 if len(differs) else n_steps
        return all(nearly_equal(own[:seen], others[:seen]) for own, others in zip(self.arrays, other.arrays, strict=True))

    def steps(self, which: Sequence[int]) -> Trajectory:
        """
        :param which: positions
        :return: what was observed and done there, without rewards
        """
        index, seen = np.asarray(which, dtype=np.int64), self.observations
        observations = {name: array[index] for name, array in seen.items()} if isinstance(seen, dict) else seen[index]
        return Trajectory(observations, self.actions[index], self.reward_vectors[:0])


class Lesson(NamedTuple):
    """
    An episode that a representative is to learn from.

    :param representative: who learns
    :param trajectory: the episode
    :param new: it has to begin with the policy of the representative that acts most like the episode
    :param detours: what else it practises, and need not master: steps of other good episodes, off the way of this one
    """

    representative: int
    trajectory: Trajectory
    new: bool
    detours: Trajectory | None = None


class TrajectoryRecorder:
    """
    Cuts rollouts into episodes; what is left of a rollout waits for the next one.

    :param n_envs: number of environments
    :param nbytes: memory that an episode may take in each of them. Of a longer one nothing is kept: it may never end
    :param copies_rewards: copy rewards of episodes that end; otherwise those within one rollout are views of it
    """

    def __init__(self, n_envs: int, nbytes: int = MEMORY, copies_rewards: bool = True):
        #: Pieces of the episode that has begun; ``None`` if it is too long
        self._begun: list[list[Trajectory] | None] = [[] for _ in range(n_envs)]
        self._nbytes = nbytes
        self._copies_rewards = copies_rewards

    def get_state(self) -> list[list[tuple[Any, ...]] | None]:
        """
        :return: the pieces of episodes that have begun, of each environment; ``None`` for one that is too long
        """
        return [None if pieces is None else [tuple(piece) for piece in pieces] for pieces in self._begun]

    def set_state(self, state: list[list[tuple[Any, ...]] | None]) -> None:
        """
        :param state: from :meth:`get_state`, of as many environments
        """
        self._begun = [None if pieces is None else [Trajectory(*piece) for piece in pieces] for pieces in state]

    def cut(
        self,
        observations: Observations,
        actions: np.ndarray,
        reward_vectors: np.ndarray,
        episode_starts: np.ndarray,
        dones: np.ndarray,
        timeouts: Collection[tuple[int, int]] = (),
    ) -> list[Trajectory | None]:
        """
        :param observations: of a rollout, (n_steps, n_envs, *observation shape), or a dict of such arrays
        :param actions: (n_steps, n_envs, actions)
        :param reward_vectors: (n_steps, n_envs, n_rewards)
        :param episode_starts: True where an observation begins an episode, (n_steps, n_envs)
        :param dones: True where the last step ended an episode, (n_envs,)
        :param timeouts: step and environment of the episodes that a time limit ended
        :return: the episodes that ended in the rollout, in the order in which they did: by step, then by environment; ``None``
            for one that was too long
        """
        # An episode ends where the next observation begins another
        ends = np.concatenate([np.asarray(episode_starts[1:], dtype=bool), np.asarray(dones, dtype=bool)[None]])
        begins = [0] * len(self._begun)
        episodes: list[Trajectory | None] = []
        for step, env in np.argwhere(ends).tolist():
            self._take(observations, actions, reward_vectors, slice(begins[env], step + 1), env, None)
            pieces = self._begun[env]
            episodes.append(None if pieces is None else joined(pieces)._replace(truncated=(step, env) in timeouts))
            self._begun[env] = []
            begins[env] = step + 1
        for env, begin in enumerate(begins):
            if begin < len(actions):
                stride = 1 + (len(actions) - begin) // KEPT_ROWS
                self._take(observations, actions, reward_vectors, slice(begin, None), env, stride)
        return episodes

    def _take(
        self,
        observations: Observations,
        actions: np.ndarray,
        reward_vectors: np.ndarray,
        steps: slice,
        env: int,
        stride: int | None,
    ) -> None:
        """Add a piece of an episode; with a stride of the rewards if it goes on, ``None`` if it has ended."""
        pieces = self._begun[env]
        if pieces is None:
            return
        # Copies: buffers are written again
        own = (
            {key: array[steps, env].copy() for key, array in observations.items()}
            if isinstance(observations, dict)
            else observations[steps, env].copy()
        )
        rewards = reward_vectors[steps, env][::stride]
        if stride is not None or self._copies_rewards:
            rewards = rewards.copy()
        pieces.append(Trajectory(own, actions[steps, env].copy(), rewards))
        if sum(piece.nbytes for piece in pieces) > self._nbytes:
            self._begun[env] = None


def nearly_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """
    :param a: any array
    :param b: of the same shape
    :return: whether they are equal but for rounding
    """
    # Every episode is looked at, and most are quite equal, which is told in a fraction of the time
    return np.array_equal(a, b) or np.allclose(a, b)


def joined(pieces: list[Trajectory]) -> Trajectory:
    """
    :param pieces: of one episode, or of several, at least one
    :return: one after the other
    """
    if len(pieces) == 1:
        return pieces[0]
    seen = [piece.observations for piece in pieces]
    observations: Observations
    if isinstance(seen[0], dict):
        observations = {key: np.concatenate([obs[key] for obs in seen if isinstance(obs, dict)]) for key in seen[0]}
    else:
        observations = np.concatenate([obs for obs in seen if isinstance(obs, np.ndarray)])
    return Trajectory(
        observations,
        np.concatenate([piece.actions for piece in pieces]),
        np.concatenate([piece.reward_vectors for piece in pieces]),
    )
