"""Who the agents of an environment are, and whether a model and an environment fit together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_rmdp.envs.contract import REWARD_VECTOR
from sb3_rmdp.vec_env.infos import BatchInfos


class Population(NamedTuple):
    """
    The agents of an environment.

    :param n_agents: how many there are
    :param population_id: fingerprint of who they are; ``None`` if the environment does not tell
    """

    n_agents: int
    population_id: str | None


def population_of(env: VecEnv) -> Population:
    """
    :param env: any vec env, wrapped or not
    :return: its agents
    :raises ValueError: if the environments have no agents, or not all the same
    """
    counts = _attribute(env, "n_agents")
    if any(count is None for count in counts):
        raise ValueError(
            "the environment has no attribute n_agents, so it is no represented MDP: set n_agents and put a float32 array "
            f'of that length into info["{REWARD_VECTOR}"] at every step, or wrap it in sb3_rmdp.envs.VectorReward'
        )
    populations = {Population(int(count), name) for count, name in zip(counts, _attribute(env, "population_id"), strict=True)}
    if len(populations) > 1:
        raise ValueError(
            f"the environments of the vec env have different agents, {sorted(map(str, populations))}: make all with the "
            "same population (e.g. the same population_seed)"
        )
    return populations.pop()


def _attribute(env: VecEnv, name: str) -> list:
    """Attribute of each environment, None where there is none."""
    return env.get_attr(name) if env.has_attr(name) else [None] * env.num_envs


def check_budget(k: int | None, n_agents: int | None = None) -> None:
    """
    :param k: number of representatives
    :param n_agents: number of agents, if it is known already
    :raises ValueError: unless k is an integer from 1 to n_agents
    """
    if k is None:
        raise ValueError("k, the number of representatives, is missing: pass e.g. k=5")
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k={k!r}: the number of representatives must be an integer of at least 1")
    if n_agents is not None and k > n_agents:
        raise ValueError(f"k={k} representatives for n_agents={n_agents}: choose k from 1 to {n_agents}")


def check_same_population(model: Population, env: Population) -> None:
    """
    :param model: the agents that a model was made for
    :param env: the agents of an environment
    :raises ValueError: if they are others; environments that do not tell who their agents are fit by number alone
    """
    if model.n_agents != env.n_agents:
        raise ValueError(
            f"the environment has n_agents={env.n_agents}, the model was made for {model.n_agents}: make the environment with "
            f"n_agents={model.n_agents}, or train a new model"
        )
    if None not in (model.population_id, env.population_id) and model.population_id != env.population_id:
        raise ValueError(
            f"the environment has the population {env.population_id!r}, the model was made for {model.population_id!r}: make "
            "the environment with the population_seed or targets of the training, or train a new model"
        )


def check_no_reward_normalization(env: VecEnv) -> None:
    """
    :param env: any vec env
    :raises ValueError: if it normalises rewards: the scalar reward would no longer be the mean of the reward vector
    """
    normalizer = unwrap_vec_normalize(env)
    if normalizer is not None and normalizer.norm_reward:
        raise ValueError(
            "VecNormalize(norm_reward=True) scales the scalar reward, but agents are scored by the reward vector: "
            "use VecNormalize(env, norm_reward=False)"
        )


def normalizes_observations(env: VecEnv) -> bool:
    """
    :param env: any vec env
    :return: whether a VecNormalize changes its observations
    """
    normalizer = unwrap_vec_normalize(env)
    return isinstance(normalizer, VecNormalize) and normalizer.norm_obs


def reward_vectors(infos: Sequence[dict], n_agents: int) -> np.ndarray:
    """
    Collect and check the reward vectors of one step.

    :param infos: infos of all environments; of a BatchInfos the array is taken, and no dict is made
    :param n_agents: length that the vectors must have
    :return: float32 array (n_envs, n_agents)
    :raises ValueError: if one is missing, of another shape, or not finite; names the environment and the value
    """
    batch = infos.reward_vectors if isinstance(infos, BatchInfos) else None
    stacked = _stack(infos, n_agents) if batch is None or batch.shape[1] != n_agents else batch
    with np.errstate(invalid="ignore"):
        # The sum is finite unless an entry is not: one pass without a temporary
        finite = np.isfinite(stacked.sum(dtype=np.float64))
    if not finite:
        env_index, agent = np.argwhere(~np.isfinite(stacked))[0]
        raise ValueError(
            f"env {env_index} gave agent {agent} the reward {stacked[env_index, agent]}: rewards must be finite; mend the "
            "environment's reward function"
        )
    return stacked


def _stack(infos: Sequence[dict], n_agents: int) -> np.ndarray:
    """
    :param infos: infos of all environments
    :param n_agents: length that the vectors must have
    :return: their reward vectors, float32 array (n_envs, n_agents)
    :raises ValueError: if one is missing or of another shape
    """
    vectors = [info.get(REWARD_VECTOR) for info in infos]
    for env_index, vector in enumerate(vectors):
        if vector is None or np.shape(vector) != (n_agents,):
            got = "no reward vector" if vector is None else f"one of shape {np.shape(vector)}"
            raise ValueError(
                f'env {env_index} gave {got} in info["{REWARD_VECTOR}"]: every step must give shape ({n_agents},), '
                "one reward per agent (sb3_rmdp.envs.check_represented_env tests an environment)"
            )
    return np.asarray(vectors, dtype=np.float32)
