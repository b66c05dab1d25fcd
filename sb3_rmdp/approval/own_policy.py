"""What an agent could have at most, if a policy were made for it alone."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.envs.resource_gathering import FULL_REWARD, ResourceGatheringEnv
from sb3_rmdp.envs.velocity import EPISODE_STEPS, VelocityTargets
from sb3_rmdp.oracles import velocity_welfare_bound
from sb3_rmdp.vec_env.episodes import time_limit


def own_policy_bounds(env: VecEnv, agents: np.ndarray) -> np.ndarray | None:
    """
    Upper bounds of the utilities that agents would have with a policy each.

    In Resource Gathering the bound is reached: straight to the agent's tile and home. In the velocity tasks it is the pay for
    the best constant speed, from which a robot that has to accelerate stays away.

    :param env: a vec env
    :param agents: their indices, (m,)
    :return: (m,) float64; ``None`` if nobody knows
    """
    base = task_of(env)
    if isinstance(base, ResourceGatheringEnv):
        return np.array([_shortest_tour(base, int(agent)) for agent in agents])
    if isinstance(base, VelocityTargets):
        limit = time_limit(env)
        if limit is None:
            return None
        targets, speeds = base.targets, base.feature_speeds
        bounds = [velocity_welfare_bound(targets[[agent]], base.max_velocity, 1, speeds=speeds) for agent in agents]
        return np.array(bounds) * (limit / EPISODE_STEPS)
    return None


def task_of(env: VecEnv) -> ResourceGatheringEnv | VelocityTargets | None:
    """
    :param env: a vec env
    :return: the first of its environments, if it is one of this package that pays its own agents and no other ones
    """
    base = env.get_attr("unwrapped", indices=0)[0]
    if not isinstance(base, (ResourceGatheringEnv, VelocityTargets)):
        return None
    # A wrapper may have put other agents in their place
    return base if env.get_attr("population_id", indices=0)[0] == base.population_id else None


def _shortest_tour(env: ResourceGatheringEnv, agent: int) -> float:
    """What the tile of an agent gets for the shortest tour over it; every tile is one of the agents."""
    rows, cols = env.shape
    row, col = divmod(agent, cols)
    steps = 2 * (abs(row - env.home[0]) + abs(col - env.home[1]))
    if steps == 0:
        # A bump into the wall beside home, if there is one, and else to a neighbour and back
        steps = 1 if env.home[0] in (0, rows - 1) or env.home[1] in (0, cols - 1) else 2
    return float(FULL_REWARD - steps) if steps <= env.max_episode_steps else 0.0
