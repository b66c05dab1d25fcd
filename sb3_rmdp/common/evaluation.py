"""How well off the agents of a model are: utilities, welfare and their errors."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, unwrap_vec_normalize

from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.arguments import Count, Flag
from sb3_rmdp.common.exploration import new_noise_per_episode
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.population import (
    agent_weights_of,
    check_no_reward_normalization,
    check_same_population,
    population_of,
    reward_key,
    reward_vectors,
)
from sb3_rmdp.common.random_numbers import apart_from_training
from sb3_rmdp.common.welfare import Nash, gini_coefficient
from sb3_rmdp.vec_env.episodes import EpisodeLengths, time_limit

#: Share of the largest variance along any direction below which one is rounding
NOTHING = 1e-12


class Split(NamedTuple):
    """
    Utilities of agents under their own representatives, twice: whoever is chosen by the first has its utility in the second.

    The lowest of many means is too low, and the highest too high: noise is part of why it was chosen.

    :param choose: (n_agents,)
    :param measure: (n_agents,), with errors that are independent of those of ``choose``
    :param error: standard errors of ``measure``, (n_agents,); nan for a single episode
    """

    choose: np.ndarray
    measure: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class WelfareEvaluation:
    """
    Result of :func:`evaluate_welfare`. Returns are undiscounted; welfare is a mean over agents (eq. 2 divided by n).

    Errors are standard errors over episodes, with at least ``n_eval_episodes - 1`` degrees of freedom. The worst-off agent is
    chosen by episodes 0, 2, ... of each representative and measured in episodes 1, 3, ...: the lowest of many means is too
    low.

    :param utilities: mean return of agent i under representative j, (n_agents, k)
    :param utilities_standard_error: standard errors of these means, (n_agents, k); nan for a single episode
    :param assignment: the representative that the model gives to each agent, (n_agents,)
    :param greedy: the representative under which each agent was best off here, (n_agents,)
    :param social_welfare: mean over agents of their utility under ``assignment``
    :param standard_error: standard error of ``social_welfare`` over episodes; nan for a single episode
    :param greedy_social_welfare: the same under ``greedy``: the best of noisy means, and so too high; see
        ``greedy_cross_validated``
    :param n_eval_episodes: episodes per representative
    :param optimum: best possible welfare with k representatives, or an upper bound, if the environment knows one
    :param half_utilities: ``utilities`` of episodes 0, 2, ... and of 1, 3, ..., (2, n_agents, k); ``None`` if nobody knows
    """

    utilities: np.ndarray
    utilities_standard_error: np.ndarray
    assignment: np.ndarray
    greedy: np.ndarray
    social_welfare: float
    standard_error: float
    greedy_social_welfare: float
    n_eval_episodes: int
    optimum: float | None = None
    half_utilities: np.ndarray | None = None

    @property
    def share_of_optimum(self) -> float | None:
        """``social_welfare`` as a share of ``optimum``, at most 1 but for chance; ``None`` without one."""
        return None if self.optimum is None else self.social_welfare / self.optimum

    @property
    def agent_utilities(self) -> np.ndarray:
        """Utility of each agent under its own representative, (n_agents,)."""
        return self.utilities[np.arange(len(self.assignment)), self.assignment]

    @property
    def split(self) -> Split:
        """
        Utilities to choose agents by and others to measure them with.

        Without ``half_utilities``, in an evaluation that was not made by :func:`evaluate_welfare`, means are split by normal
        noise that is added to one and taken from the other. A single episode cannot be split: both are its returns.
        """
        agents, own, n = np.arange(len(self.assignment)), self.agent_utilities, self.n_eval_episodes
        error = self.utilities_standard_error[agents, self.assignment]
        if n < 2 or not np.isfinite(error).all():
            return Split(own, own, np.full_like(own, np.nan))
        if self.half_utilities is not None:
            even, odd = self.half_utilities[:, agents, self.assignment]
            return Split(even, odd, error * half_error(n))
        # What agents do not share of their noise is not more than what they differ by
        spread = np.minimum(error, own.std(ddof=1) if len(own) > 1 else 0.0)
        # Other noise for other means: the same noise would choose the same agent every time
        noise = spread * np.random.default_rng(zlib.crc32(own.tobytes())).normal(size=len(own))
        return Split(own + noise, own - noise, np.hypot(error, spread))

    @property
    def worst_agent(self) -> int:
        """The agent that is worst off, as far as half of the episodes tell."""
        return int(self.split.choose.argmin())

    @property
    def worst_utility(self) -> float:
        """
        Utility of ``worst_agent``, egalitarian welfare, in the episodes that it was not chosen by; of a single episode the
        lowest return, which is too low.
        """
        return float(self.split.measure[self.worst_agent])

    @property
    def worst_error(self) -> float:
        """Standard error of ``worst_utility``; nan for a single episode."""
        return float(self.split.error[self.worst_agent])

    @property
    def greedy_cross_validated(self) -> float:
        """
        Welfare if agents took the representative that was best in one half of the episodes, in the other half, mean of both
        ways; nan if halves are not known. Unlike ``greedy_social_welfare`` it is not too high.
        """
        if self.half_utilities is None or self.n_eval_episodes < 2:
            return float("nan")
        even, odd = self.half_utilities
        return float((_take(odd, even.argmax(axis=1)) + _take(even, odd.argmax(axis=1))).mean() / 2)

    @property
    def gini(self) -> float:
        """Gini coefficient of the agents' utilities, 0 where all have the same; nan if one is negative, or all are 0."""
        return gini_coefficient(self.agent_utilities)

    @property
    def nash_welfare(self) -> float:
        """Geometric mean of the agents' utilities; nan if one is negative."""
        utilities = self.agent_utilities
        return float("nan") if (utilities < 0).any() else Nash(len(utilities)).value(utilities)

    def __str__(self) -> str:
        text = f"social welfare {self.social_welfare:.2f} +- {self.standard_error:.2f}"
        if self.optimum is not None:
            text += f", {100 * self.social_welfare / self.optimum:.1f} % of {self.optimum:.2f}"
        return text


def half_error(n_episodes: int) -> float:
    """
    :param n_episodes: number of episodes, at least 2
    :return: standard error of a mean over episodes 1, 3, ... of these in multiples of that of the mean over all
    """
    return float(np.sqrt(n_episodes / (n_episodes // 2)))


@apart_from_training
def evaluate_welfare(
    model: RepresentedOnPolicyAlgorithm,
    env: GymEnv,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    max_episode_steps: int | None = None,
) -> WelfareEvaluation:
    """
    Let every representative act for a number of episodes and score all agents in each of them.

    Which episodes count is settled before they begin, so that short ones are not favoured. Statistics of a VecNormalize
    are not updated. Sampled actions of gSDE have new noise in every episode. Called in a training, by a callback, it leaves
    the random numbers of the training alone.

    :param model: the model
    :param env: an environment, or a vec env of any size, with the agents of the model; not seeded here, see
        :func:`~sb3_rmdp.common.seeds.seed_evaluation`
    :param n_eval_episodes: episodes per representative, at least 1
    :param deterministic: take the modes of the policies instead of samples, as ``evaluate_policy`` does by default
    :param max_episode_steps: steps that an episode may take, at least 1; by default 10 000, with a warning after 2500, or
        the time limit of the environment, if that is longer
    :return: utilities, welfare, and their errors
    :raises ValueError: if an argument is wrong, the environment has other agents, the model knows observations under another
        VecNormalize, or an episode does not end
    """
    n_eval_episodes = Count().check("n_eval_episodes", n_eval_episodes)
    deterministic = Flag().check("deterministic", deterministic)
    vec_env = as_vec_env(env)
    check_no_reward_normalization(vec_env)
    check_same_population(model.population, population_of(vec_env))
    model.check_vec_normalize(vec_env)

    lengths = EpisodeLengths(vec_env, max_episode_steps)
    normalizer = unwrap_vec_normalize(vec_env)
    training = None if normalizer is None else normalizer.training
    if normalizer is not None:
        normalizer.training = False
    try:
        with new_noise_per_episode(model, vec_env.num_envs, deterministic) as draw_noise:
            moments = _run_episodes(model, vec_env, n_eval_episodes, deterministic, lengths, draw_noise)
    finally:
        if normalizer is not None and training is not None:
            normalizer.training = training

    assignment = model.assignment.representatives
    utilities, variances = moments.utilities(), moments.variances()
    greedy = np.where(_take(utilities, assignment) == utilities.max(axis=1), assignment, utilities.argmax(axis=1))
    return WelfareEvaluation(
        utilities=utilities,
        utilities_standard_error=np.sqrt(variances / n_eval_episodes),
        assignment=assignment,
        greedy=greedy,
        social_welfare=float(_take(utilities, assignment).mean()),
        # Episodes of different representatives are independent; agents of one share its episodes
        standard_error=float(np.sqrt(moments.group_variance.sum() / n_eval_episodes)),
        greedy_social_welfare=float(utilities.max(axis=1).mean()),
        n_eval_episodes=n_eval_episodes,
        optimum=welfare_optimum(vec_env, model.policy.k),
        half_utilities=moments.half_utilities() if n_eval_episodes > 1 else None,
    )


def welfare_optimum(env: VecEnv, k: int) -> float | None:
    """
    :param env: a vec env
    :param k: number of representatives
    :return: best possible welfare, or an upper bound, in episodes as long as the time limit of the environment; ``None`` if
        the environment has no method ``welfare_bound(k)``, or it does not know, or nothing limits what episodes are worth
    """
    bound = env.env_method("welfare_bound", k, indices=0)[0] if env.has_attr("welfare_bound") else None
    if bound is None:
        return None
    steps = env.get_attr("welfare_bound_steps", indices=0)[0] if env.has_attr("welfare_bound_steps") else None
    if steps is None:
        return float(bound)
    limit = time_limit(env)
    return None if limit is None else float(bound) * (limit / steps)


def as_vec_env(env: GymEnv) -> VecEnv:
    """
    :param env: an environment or a vec env
    :return: the vec env, or one of the single environment
    """
    return env if isinstance(env, VecEnv) else DummyVecEnv([lambda: Monitor(env)])


def _take(utilities: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    return np.take_along_axis(utilities, assignment[:, None], axis=1)[:, 0]


class _Moments:
    """
    Running moments of returns, and of what each representative's group adds to welfare.

    Utilities are linear in returns of features, and their variances quadratic: with factored rewards means and covariances
    of the features are kept.

    :param assignment: representative of each agent, (n_agents,)
    :param k: number of representatives
    :param weights: of the agents
    """

    def __init__(self, assignment: np.ndarray, k: int, weights: AgentWeights):
        self._weights = weights
        shares = th.as_tensor((assignment[:, None] == np.arange(k)) / np.float32(len(assignment)))
        self._groups = weights.of_groups(shares).numpy().T.astype(np.float64)  # (k, size)
        self._counts = np.zeros(k, dtype=np.int64)
        self._mean = np.zeros((k, weights.size))
        self._squares = np.zeros((k, weights.size, weights.size) if weights.factored else (k, weights.size))
        self._group_mean = np.zeros(k)
        self._group_squares = np.zeros(k)
        self._half_counts = np.zeros((2, k), dtype=np.int64)
        self._half_mean = np.zeros((2, k, weights.size))

    def add(self, representative: int, returns: np.ndarray) -> None:
        """One more episode (Welford's algorithm: stable where the variance is small against the mean)."""
        j = representative
        self._counts[j] += 1
        delta = returns - self._mean[j]
        self._mean[j] += delta / self._counts[j]
        delta_after = returns - self._mean[j]
        self._squares[j] += np.outer(delta, delta_after) if self._weights.factored else delta * delta_after
        group_return = self._groups[j] @ returns
        group_delta = group_return - self._group_mean[j]
        self._group_mean[j] += group_delta / self._counts[j]
        self._group_squares[j] += group_delta * (group_return - self._group_mean[j])

    def add_to_half(self, half: int, representative: int, returns: np.ndarray) -> None:
        """The same episode, as one of half 0 or 1."""
        mean = self._half_mean[half, representative]
        self._half_counts[half, representative] += 1
        mean += (returns - mean) / self._half_counts[half, representative]

    def half_utilities(self) -> np.ndarray:
        """Mean returns of either half (2, n_agents, k)."""
        return np.stack([self._weights.of_agents(th.as_tensor(mean.T)).numpy() for mean in self._half_mean])

    def utilities(self) -> np.ndarray:
        """Mean returns (n_agents, k)."""
        return self._weights.of_agents(th.as_tensor(self._mean.T)).numpy().copy()

    def variances(self) -> np.ndarray:
        """Unbiased variances of returns (n_agents, k); nan after one episode."""
        if not self._weights.factored:
            return self._unbiased(self._squares, self._counts[:, None]).T
        variances = np.empty((self._weights.n_agents, len(self._counts)))
        for j, covariance in enumerate(self._unbiased(self._squares, self._counts[:, None, None])):
            if np.isnan(covariance).any():
                variances[:, j] = np.nan
                continue
            # Few episodes vary in few directions, and what agents have of these is all there is to their variance
            squares, directions = np.linalg.eigh(covariance)
            varying = squares > NOTHING * squares[-1]
            factor = th.as_tensor(directions[:, varying] * np.sqrt(squares[varying]))
            for agents in self._weights.blocks():
                variances[agents, j] = self._weights.of_agents(factor, agents).square().sum(dim=1).numpy()
        return variances

    @property
    def group_variance(self) -> np.ndarray:
        """Unbiased variance of the groups' shares of welfare (k,); nan after one episode."""
        return self._unbiased(self._group_squares, self._counts)

    @staticmethod
    def _unbiased(squares: np.ndarray, counts: np.ndarray) -> np.ndarray:
        enough = np.broadcast_to(counts > 1, squares.shape)
        return np.divide(squares, counts - 1, out=np.full_like(squares, np.nan), where=enough)


def _run_episodes(
    model: RepresentedOnPolicyAlgorithm,
    env: VecEnv,
    n_eval_episodes: int,
    deterministic: bool,
    lengths: EpisodeLengths,
    draw_noise: Callable[[np.ndarray], None],
) -> _Moments:
    k, n_envs = model.k, env.num_envs
    # Of this environment: a loaded model may know none
    weights = agent_weights_of(env, model.n_agents)
    size, key = weights.size, reward_key(weights)
    moments = _Moments(model.assignment.representatives, k, weights)
    n_episodes = n_eval_episodes * k
    # Episode number m belongs to representative m mod k; an env that is through with one takes the next number
    episodes = np.arange(n_envs)
    started = n_envs
    running = np.zeros((n_envs, size))
    obs = env.reset()
    while (episodes < n_episodes).any():
        actions, _ = model.predict(obs, deterministic=deterministic, representative=episodes % k)  # type: ignore[arg-type]
        obs, _, dones, infos = env.step(actions)
        lengths.add(dones)
        draw_noise(dones)
        running += reward_vectors(infos, size, key)
        for idx in np.flatnonzero(dones):
            if episodes[idx] < n_episodes:
                moments.add(int(episodes[idx] % k), running[idx])
                # By numbers, which are settled before: by the order of the ends one half would have the shorter episodes
                moments.add_to_half(int(episodes[idx] // k % 2), int(episodes[idx] % k), running[idx])
            running[idx] = 0.0
            episodes[idx] = started
            started += 1
    return moments
