"""Rollout buffers for reward vectors: per-agent returns, marginal advantages, minibatches of every representative."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import PyTorchObs

#: Entries of temporary arrays in passes over (steps, envs, agents): small enough to stay in cache, large enough for numpy
CHUNK_ENTRIES = 2**20


class RepresentedRolloutSamples(NamedTuple):
    """
    A minibatch: k blocks of ``batch`` transitions, block j acted by representative j.

    ``weights`` (k, batch) is 1 for a transition and 0 for padding, or ``None`` if nothing is padded. All else has a leading
    axis of length k * batch: observations, actions, old_log_prob (), advantages (), returns (n_values,), and old_values
    (n_values,) if asked for.
    """

    observations: PyTorchObs
    actions: th.Tensor
    old_log_prob: th.Tensor
    advantages: th.Tensor
    returns: th.Tensor
    old_values: th.Tensor | None
    weights: th.Tensor | None


class RolloutChunk(NamedTuple):
    """
    Consecutive transitions: observations, actions, representatives (m,) and reward vectors (m, n_rewards) to read, and views
    of the buffer's ``values`` and ``returns`` (m, n_values) and ``log_probs`` (m,) to write to.
    """

    observations: PyTorchObs
    actions: th.Tensor
    representatives: th.Tensor
    reward_vectors: np.ndarray
    values: np.ndarray
    returns: np.ndarray
    log_probs: np.ndarray


class VectorRewardRolloutBuffer(RolloutBuffer):
    """
    Rollouts with a vector of rewards per transition, one for every agent or for every reward feature.

    Arrays are (n_steps, n_envs, ...) and keep that order. The two large ones are ``reward_vectors``, turned into ``returns``
    in place, and ``values``, both (n_steps, n_envs, n_rewards) float32; nothing else of that size is ever made. Where the
    critic has fewer values than there are rewards, ``returns`` and ``values`` are (n_steps, n_envs, n_values), and rewards
    stay as they are. Values and log probabilities are not known while transitions are added: :meth:`chunks` hands
    everything out for one pass of the networks.

    :param buffer_size: steps per environment
    :param observation_space: space of an observation
    :param action_space: space of an action
    :param device: device of the minibatches
    :param gae_lambda: lambda of generalised advantage estimation
    :param gamma: discount factor
    :param n_envs: number of environments
    :param n_rewards: length of a reward vector
    :param n_values: number of values of a critic that has other values than one per reward
    :param k: number of representatives
    """

    representatives: np.ndarray
    reward_vectors: np.ndarray

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        gae_lambda: float = 1,
        gamma: float = 0.99,
        n_envs: int = 1,
        n_rewards: int = 1,
        n_values: int | None = None,
        k: int = 1,
    ):
        self.n_rewards = n_rewards
        self.n_values = n_rewards if n_values is None else n_values
        self.projected = n_values is not None
        self.k = k
        super().__init__(buffer_size, observation_space, action_space, device, gae_lambda, gamma, n_envs)

    def reset(self) -> None:
        """Start a new rollout. Memory is allocated once: with many agents, giving it back and asking again is slow."""
        if "values" not in self.__dict__:
            shape = (self.buffer_size, self.n_envs)
            self._allocate_observations()
            self.actions = np.zeros((*shape, self.action_dim), dtype=self.action_space.dtype)
            self.log_probs = np.zeros(shape, dtype=np.float32)
            self.episode_starts = np.zeros(shape, dtype=np.float32)
            self.representatives = np.zeros(shape, dtype=np.int64)
            self.advantages = np.zeros(shape, dtype=np.float32)
            self.values = np.zeros((*shape, self.n_values), dtype=np.float32)
            self.reward_vectors = np.zeros((*shape, self.n_rewards), dtype=np.float32)
            self.returns = np.zeros_like(self.values) if self.projected else self.reward_vectors
        self.pos = 0
        self.full = False

    def add(  # type: ignore[override]
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        action: np.ndarray,
        reward_vector: np.ndarray,
        episode_start: np.ndarray,
        representative: np.ndarray,
    ) -> None:
        """
        Add one step of all environments.

        :param obs: observations (n_envs, *observation shape), raw
        :param action: actions (n_envs, *action shape)
        :param reward_vector: rewards (n_envs, n_rewards)
        :param episode_start: True where the observation begins an episode, (n_envs,)
        :param representative: who acted, (n_envs,)
        """
        self._store_observations(obs)
        self.actions[self.pos] = action.reshape((self.n_envs, self.action_dim))
        self.reward_vectors[self.pos] = reward_vector
        self.episode_starts[self.pos] = episode_start
        self.representatives[self.pos] = representative
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def chunks(self) -> Iterator[RolloutChunk]:
        """The whole rollout in pieces of bounded size, in the order in which it was collected."""
        steps = max(1, CHUNK_ENTRIES // (self.n_envs * max(self.n_values, 64)))
        for start in range(0, self.buffer_size, steps):
            rows = np.arange(start * self.n_envs, min(start + steps, self.buffer_size) * self.n_envs)
            piece = slice(rows[0], rows[-1] + 1)
            yield RolloutChunk(
                observations=self._observations_at(rows),
                actions=self.to_torch(self.actions.reshape(-1, self.action_dim)[piece]).float(),
                representatives=self.to_torch(self.representatives.reshape(-1)[piece]),
                reward_vectors=self.reward_vectors.reshape(-1, self.n_rewards)[piece],
                values=self.values.reshape(-1, self.n_values)[piece],
                returns=self.returns.reshape(-1, self.n_values)[piece],
                log_probs=self.log_probs.reshape(-1)[piece],
            )

    def bootstrap(self, steps: list[int], envs: list[int], values: np.ndarray) -> None:
        """
        Add the discounted value of the state in which a time limit cut an episode off to the episode's last reward.

        :param steps: steps at which episodes were cut off
        :param envs: their environments
        :param values: values (m, n_values) of their last states, under the representatives that acted
        """
        self.returns[steps, envs] += self.gamma * values

    def compute_returns_and_advantage(self, last_values: th.Tensor, dones: np.ndarray) -> None:
        """
        Turn the rewards in ``returns`` into TD(lambda) returns, in place. Advantages are returns minus values; the sum that an
        actor ascends is taken in :meth:`compute_marginal_advantages`, once alpha is known.

        :param last_values: values (n_envs, n_values) of the states after the last step
        :param dones: True where the last step ended an episode, (n_envs,)
        """
        next_values = last_values.cpu().numpy().reshape(self.n_envs, self.n_values)
        next_non_terminal = 1.0 - dones.astype(np.float32)[:, None]
        advantages = np.zeros((self.n_envs, self.n_values), dtype=np.float32)
        for step in reversed(range(self.buffer_size)):
            values, returns = self.values[step], self.returns[step]
            discount = self.gamma * next_non_terminal
            advantages *= self.gae_lambda * discount
            advantages += returns
            advantages += discount * next_values
            advantages -= values
            np.add(advantages, values, out=returns)
            next_values = values
            next_non_terminal = 1.0 - self.episode_starts[step][:, None]

    def compute_marginal_advantages(self, value_weights: np.ndarray, reward_weights: np.ndarray | None = None) -> float:
        """
        A^j = sum_i alpha[i, j] A^ij for the representative j that acted (eq. 9), into ``advantages`` (n_steps, n_envs).

        :param value_weights: what each of the critic's values counts for a representative's agents, (n_values, k); alpha
            itself if there is one per agent
        :param reward_weights: what each reward counts beyond what the values' rewards say of it, (n_rewards, k): what a critic
            of fewer values leaves out of the agents' rewards, so that what the actor ascends is exact
        :return: share of the variance of the marginal returns that the critic explains; nan if they do not vary
        """
        weights = np.ascontiguousarray(value_weights.T, dtype=np.float32)
        returns = np.empty_like(self.advantages)
        for chunk in self._pieces(self.n_values):
            chunk_weights = weights[self.representatives[chunk]]
            np.einsum("sei,sei->se", self.returns[chunk], chunk_weights, out=returns[chunk])
            np.einsum("sei,sei->se", self.returns[chunk] - self.values[chunk], chunk_weights, out=self.advantages[chunk])
        if reward_weights is not None:
            left_out = self._discounted_sums(np.ascontiguousarray(reward_weights.T, dtype=np.float32))
            returns += left_out
            self.advantages += left_out
        variance = returns.var()
        return float("nan") if variance == 0 else float(1.0 - self.advantages.var() / variance)

    def normalize_advantages(self) -> None:
        """
        Give the advantages of every representative zero mean and unit standard deviation over the rollout, in place.

        Advantages of 0, as those of a representative without agents, stay 0, and a single transition keeps what it has.
        """
        for j in range(self.k):
            own = self.representatives == j
            advantages = self.advantages[own]
            if len(advantages) > 1:
                # SB3's epsilon, as where minibatches are normalised
                self.advantages[own] = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)

    def _pieces(self, width: int) -> Iterator[slice]:
        """Steps in ranges, for temporary arrays (steps, n_envs, width) of bounded size."""
        steps = max(1, CHUNK_ENTRIES // (self.n_envs * width))
        for start in range(0, self.buffer_size, steps):
            yield slice(start, start + steps)

    def _discounted_sums(self, weights: np.ndarray) -> np.ndarray:
        """
        Advantages of rewards whose values are zero.

        :param weights: of rewards for each representative, (k, n_rewards)
        :return: (n_steps, n_envs)
        """
        sums = np.empty_like(self.advantages)
        for chunk in self._pieces(self.n_rewards):
            np.einsum("sei,sei->se", self.reward_vectors[chunk], weights[self.representatives[chunk]], out=sums[chunk])
        for step in reversed(range(self.buffer_size - 1)):
            sums[step] += self.gamma * self.gae_lambda * (1.0 - self.episode_starts[step + 1]) * sums[step + 1]
        return sums

    def minibatches(self, batch_size: int | None = None) -> Iterator[tuple[np.ndarray, th.Tensor | None]]:
        """
        One epoch of minibatches. Each holds up to ``batch_size`` transitions of every representative; those that have fewer
        transitions than others run out earlier and are padded with weight 0.

        :param batch_size: transitions per representative, all by default
        :return: positions of transitions in the rollout, (k * batch,), block by block; and weights (k, batch), or ``None`` if
            nothing is padded
        """
        assert self.full, "the rollout is not complete"
        # Transitions of each representative, shuffled; listed env by env as in SB3, so that k = 1 draws what SB3 draws
        by_env = self.representatives.T.reshape(-1)
        own = [np.random.permutation(np.flatnonzero(by_env == j)) for j in range(self.k)]
        own = [(rows % self.buffer_size) * self.n_envs + rows // self.buffer_size for rows in own]
        longest = max(len(rows) for rows in own)
        batch_size = batch_size or longest
        for start in range(0, longest, batch_size):
            batches = [rows[start : start + batch_size] for rows in own]
            length = max(len(rows) for rows in batches)
            weights = None
            if any(len(rows) < length for rows in batches):
                weights = self.to_torch(np.stack([np.arange(length) < len(rows) for rows in batches]).astype(np.float32))
                batches = [np.resize(rows, length) if len(rows) else np.zeros(length, dtype=np.int64) for rows in batches]
            yield np.concatenate(batches), weights

    def get(  # type: ignore[override]
        self, batch_size: int | None = None, with_values: bool = False
    ) -> Generator[RepresentedRolloutSamples, None, None]:
        """
        One epoch of :meth:`minibatches`, with all that belongs to them.

        :param batch_size: transitions per representative, all by default
        :param with_values: include ``old_values``
        :return: generator of minibatches
        """
        for rows, weights in self.minibatches(batch_size):
            yield self._samples_at(rows, weights, with_values)

    def _samples_at(self, rows: np.ndarray, weights: th.Tensor | None, with_values: bool) -> RepresentedRolloutSamples:
        def gather(array: np.ndarray) -> th.Tensor:
            return self.to_torch(array.reshape(-1, *array.shape[2:])[rows], copy=False)

        return RepresentedRolloutSamples(
            observations=self._observations_at(rows),
            # As in SB3: float32, since log probabilities of MultiBinary actions need it
            actions=gather(self.actions).float(),
            old_log_prob=gather(self.log_probs),
            advantages=gather(self.advantages),
            returns=gather(self.returns),
            old_values=gather(self.values) if with_values else None,
            weights=weights,
        )

    def _allocate_observations(self) -> None:
        shape = (self.buffer_size, self.n_envs, *self.obs_shape)
        self.observations = np.zeros(shape, dtype=self.observation_space.dtype)

    def _store_observations(self, obs: np.ndarray | dict[str, np.ndarray]) -> None:
        self.observations[self.pos] = np.asarray(obs).reshape((self.n_envs, *self.obs_shape))

    def _observations_at(self, rows: np.ndarray) -> PyTorchObs:
        return self.to_torch(self.observations.reshape(-1, *self.obs_shape)[rows], copy=False)


class VectorRewardDictRolloutBuffer(VectorRewardRolloutBuffer, DictRolloutBuffer):  # type: ignore[misc]
    """:class:`VectorRewardRolloutBuffer` for ``Dict`` observations."""

    observation_space: spaces.Dict
    obs_shape: dict[str, tuple[int, ...]]
    observations: dict[str, np.ndarray]

    def _allocate_observations(self) -> None:
        self.observations = {
            key: np.zeros((self.buffer_size, self.n_envs, *shape), dtype=self.observation_space[key].dtype)
            for key, shape in self.obs_shape.items()
        }

    def _store_observations(self, obs: np.ndarray | dict[str, np.ndarray]) -> None:
        assert isinstance(obs, dict)
        for key, array in self.observations.items():
            array[self.pos] = np.asarray(obs[key]).reshape((self.n_envs, *self.obs_shape[key]))

    def _observations_at(self, rows: np.ndarray) -> PyTorchObs:
        return {
            key: self.to_torch(array.reshape(-1, *self.obs_shape[key])[rows], copy=False)
            for key, array in self.observations.items()
        }
