"""Who the agents of an environment are, and whether a model and an environment fit together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_rmdp.common.agent_weights import AgentWeights
from sb3_rmdp.common.arguments import Count, refusal, shown
from sb3_rmdp.common.finite import is_finite
from sb3_rmdp.envs.contract import REWARD_FEATURES, REWARD_VECTOR, fingerprint
from sb3_rmdp.envs.registered import check_registered
from sb3_rmdp.envs.spaces import check_spaces
from sb3_rmdp.vec_env.infos import BatchInfos


class Population(NamedTuple):
    """
    The agents of an environment.

    :param n_agents: how many there are
    :param population_id: fingerprint of who they are; ``None`` if the environment does not tell
    :param n_features: number of reward features; ``None`` if every agent has a reward of its own
    """

    n_agents: int
    population_id: str | None
    n_features: int | None = None


def population_of(env: VecEnv) -> Population:
    """
    :param env: any vec env, wrapped or not
    :return: its agents
    :raises ValueError: if the environments have no agents, or not all the same
    """
    counts = [agent_count(count) for count in _attribute(env, "n_agents")]
    populations = {Population(count, name) for count, name in zip(counts, _attribute(env, "population_id"), strict=True)}
    if len(populations) > 1:
        raise ValueError(
            f"the environments of the vec env have different agents, {sorted(map(str, populations))}: make all with the "
            "same population (e.g. the same population_seed)"
        )
    n_agents, name, _ = populations.pop()
    weights = reward_weights_of(env, n_agents)
    if weights is None:
        return Population(n_agents, name)
    return Population(n_agents, name or fingerprint("weights", weights), weights.shape[1])


def agent_count(n_agents: Any) -> int:
    """
    :param n_agents: attribute of an environment, ``None`` where it has none
    :return: number of its agents
    :raises ValueError: if there is none, or it is no number of agents
    """
    if n_agents is None:
        raise ValueError(
            "the environment has no attribute n_agents, so it is no represented MDP: set n_agents and put a float32 array "
            f'of that length into info["{REWARD_VECTOR}"] at every step, or wrap it in sb3_rmdp.envs.VectorReward'
        )
    return Count().check("the environment's n_agents", n_agents)


def looked_at(env: GymEnv | str | None, k: int) -> GymEnv | str:
    """
    Look at one environment, before k copies of it are made.

    :param env: what a model was given: a gymnasium id, an environment or a vec env
    :param k: number of representatives
    :return: the same
    :raises ValueError: if it is none of them, has fewer agents than k, or spaces that cannot be used
    """
    if env is None:
        raise ValueError("env=None: pass an environment, a vec env or a gymnasium id, e.g. 'rmdp/ResourceGathering-v0'")
    if isinstance(env, str):
        check_registered(env)
        one = gym.make(env)
        try:
            looked_at(one, k)
        finally:
            one.close()
    elif isinstance(env, gym.Env):
        check_budget(k, agent_count(env.get_wrapper_attr("n_agents") if env.has_wrapper_attr("n_agents") else None))
        check_spaces(getattr(env, "observation_space", None), getattr(env, "action_space", None))
    elif isinstance(env, VecEnv):
        check_spaces(env.observation_space, env.action_space)
    elif isinstance(env, type) or not (callable(getattr(env, "reset", None)) and callable(getattr(env, "step", None))):
        raise refusal("env", env, "pass an environment, a vec env or a gymnasium id, e.g. 'rmdp/ResourceGathering-v0'")
    return env


def reward_weights_of(env: VecEnv, n_agents: int) -> np.ndarray | None:
    """
    :param env: a vec env of represented environments
    :param n_agents: number of their agents
    :return: weights of the agents on reward features, float32 (n_agents, n_features); ``None`` if rewards are not factored
    :raises ValueError: if they are no finite matrix with a row per agent
    """
    weights = env.get_attr("reward_weights", indices=[0])[0] if env.has_attr("reward_weights") else None
    if weights is None:
        return None
    array = np.asarray(weights, dtype=np.float32)
    if array.ndim != 2 or len(array) != n_agents or not array.shape[1]:
        raise ValueError(
            f"the environment's reward_weights have shape {array.shape}: give one row per agent and one column per reward "
            f"feature, shape ({n_agents}, n_features)"
        )
    # The sum is finite unless an entry is not: one pass without a temporary
    if not np.isfinite(array.sum(dtype=np.float64)):
        agent, feature = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"reward_weights[{agent}, {feature}] is {array[agent, feature]}: weights must be finite")
    return array


def agent_weights_of(env: VecEnv, n_agents: int, device: th.device | str = "cpu") -> AgentWeights:
    """
    :param env: a vec env of represented environments
    :param n_agents: number of their agents
    :param device: where products are to be taken
    :return: how the agents' rewards come from what the environment gives at each step
    """
    weights = reward_weights_of(env, n_agents)
    return AgentWeights(n_agents, None if weights is None else _as_tensor(weights).to(device))


def _as_tensor(weights: np.ndarray) -> th.Tensor:
    with warnings.catch_warnings():
        # Weights are read-only, as ours are: nobody writes to the tensor, and a copy for a million agents is a large one
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return th.from_numpy(weights)


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
        raise refusal("k", k, "the number of representatives must be an integer of at least 1")
    if n_agents is not None and k > n_agents:
        raise ValueError(f"k={shown(k)} representatives for n_agents={n_agents}: choose k from 1 to {n_agents}")


def check_agent(agent: int, n_agents: int) -> None:
    """
    :param agent: number of an agent
    :param n_agents: how many there are
    :raises ValueError: if there is no such agent
    """
    try:
        Count(0, n_agents - 1).read(agent)
    except ValueError:
        raise refusal("agent", agent, f"there are {n_agents} agents, numbered 0 to {n_agents - 1}") from None


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
    if model.n_features != env.n_features:
        had, has = (f"{p.n_features} reward features" if p.n_features else "reward vectors" for p in (model, env))
        raise ValueError(f"the environment gives {has}, the model was made for {had}: make it as in the training")
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


def check_same_normalization(trained_under: bool | None, env: VecEnv) -> None:
    """
    :param trained_under: whether a model was trained under a VecNormalize of observations; ``None`` if it was not trained yet
    :param env: an environment that it is to act in
    :raises ValueError: if this is one under a VecNormalize and that was none, or the reverse
    """
    if trained_under not in (None, normalizes_observations(env)):
        raise ValueError(
            "the model was trained on observations normalised by VecNormalize: load its statistics with "
            "VecNormalize.load(path, env) and pass that environment"
            if trained_under
            else "the model was trained without VecNormalize, whose observations it would not understand: pass the "
            "environment without it"
        )


def reward_key(weights: AgentWeights) -> str:
    """
    :param weights: of the agents of an environment
    :return: the key of infos under which its steps tell what they pay
    """
    return REWARD_FEATURES if weights.factored else REWARD_VECTOR


def reward_vectors(infos: Sequence[dict], size: int, key: str = REWARD_VECTOR) -> np.ndarray:
    """
    Collect and check what one step pays: a reward for each agent, or for each reward feature.

    :param infos: infos of all environments; of a BatchInfos the array is taken, and no dict is made
    :param size: length that the vectors must have
    :param key: under which they stand in the infos
    :return: float32 array (n_envs, size)
    :raises ValueError: if one is missing, of another shape, or not finite; names the environment and the value
    """
    batch = infos.reward_vectors if isinstance(infos, BatchInfos) and infos.key == key else None
    stacked = _stack(infos, key, size) if batch is None or batch.shape[1] != size else batch
    if not is_finite(stacked):
        env_index, entry = np.argwhere(~np.isfinite(stacked))[0]
        who = f"agent {entry} the reward" if key == REWARD_VECTOR else f"reward feature {entry} the value"
        raise ValueError(
            f"env {env_index} gave {who} {stacked[env_index, entry]}: rewards must be finite; fix the environment's reward "
            "function"
        )
    return stacked


def _stack(infos: Sequence[dict], key: str, size: int) -> np.ndarray:
    """
    :param infos: infos of all environments
    :param key: under which vectors stand
    :param size: length that the vectors must have
    :return: the vectors, float32 array (n_envs, size)
    :raises ValueError: if one is missing or of another shape
    """
    vectors = [info.get(key) for info in infos]
    for env_index, vector in enumerate(vectors):
        if vector is None or np.shape(vector) != (size,):
            got = f"no {key.replace('_', ' ')}" if vector is None else f"one of shape {np.shape(vector)}"
            what = "one reward per agent" if key == REWARD_VECTOR else "one number per column of reward_weights"
            raise ValueError(
                f'env {env_index} gave {got} in info["{key}"]: every step must give shape ({size},), {what} '
                "(sb3_rmdp.envs.check_represented_env tests an environment)"
            )
    return np.asarray(vectors, dtype=np.float32)
