"""What an assignment lets its representatives earn, whatever their policies."""

from __future__ import annotations

import json
from functools import cache

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import sb3_rmdp.envs  # noqa: F401 (registers the environments)
from benchmarks.figures.data import Row
from sb3_rmdp.envs.velocity import VelocityTargets
from sb3_rmdp.oracles import velocity_welfare_bound


@cache
def _task(env_id: str, env_kwargs: str) -> VelocityTargets | None:
    """A velocity task, closed already; ``None`` if it is something else."""
    env = gym.make(env_id, **json.loads(env_kwargs))
    env.close()
    return env.unwrapped if isinstance(env.unwrapped, VelocityTargets) else None


def _task_of(row: Row) -> VelocityTargets | None:
    return _task(row.env, json.dumps(row.env_kwargs))


def targets_of(row: Row) -> NDArray[np.float64]:
    """
    :param row: a result in a velocity task
    :return: speeds that its agents want, (n_agents,)
    :raises ValueError: if its environment is no velocity task
    """
    task = _task_of(row)
    if task is None:
        raise ValueError(f"{row.env} is no velocity task: its agents want no speeds")
    return task.targets


def worth_of_groups(row: Row) -> float | None:
    """
    What welfare is below that, policies lack; what that is below the bound for all assignments, the assignment lacks.

    :param row: a result
    :return: welfare if each representative held, all the time, the speed that is best for just its agents, in [0, 100];
        ``None`` where agents want no speeds
    """
    task = _task_of(row)
    if task is None:
        return None
    groups = [task.targets[np.array(row.representatives) == j] for j in set(row.representatives)]
    best = [len(group) * velocity_welfare_bound(group, task.max_velocity, 1, task.feature_speeds) for group in groups]
    return float(sum(best)) / row.n_agents


def largest_group(row: Row) -> int:
    """
    :param row: a result
    :return: number of agents that are left with one representative, of the one with most
    """
    return int(np.bincount(row.representatives).max())
