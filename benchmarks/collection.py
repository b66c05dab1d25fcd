"""
Steps per second of the vec envs that step copies together, against SB3's DummyVecEnv: same environments, same actions.

    python benchmarks/collection.py

Both are timed in turn, so that a machine that gets slower or faster meanwhile does not change the ratio; the ratio of the
medians is what counts. Random actions: episodes are shorter, and resets more frequent, than in a training that works.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_rmdp.envs import ENV_IDS
from sb3_rmdp.vec_env import VelocityVecEnv, make_represented_vec_env


def seconds_per_step(env: VecEnv, actions: list[np.ndarray]) -> float:
    """
    :param env: a vec env that has been reset
    :param actions: of all environments, one array per step
    :return: mean over the steps
    """
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    return (time.perf_counter() - start) / len(actions)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", default=list(ENV_IDS), help="gymnasium ids")
    parser.add_argument("--n-envs", type=int, nargs="+", default=[3, 10, 50], help="numbers of environments")
    parser.add_argument("--n-threads", type=int, default=1, help="threads of MuJoCo; more than 1 needs as many idle cores")
    parser.add_argument("--repeats", type=int, default=25, help="timings of each side")
    parser.add_argument("--transitions", type=int, default=200, help="of one timing, all environments together")
    arguments = parser.parse_args()
    print(f"{'environment':30} {'copies':>6} {'DummyVecEnv':>14} {'together':>14}   ratio")
    for env_id in arguments.env:
        for n_envs in arguments.n_envs:
            together = make_represented_vec_env(env_id, n_envs, seed=0)
            if arguments.n_threads > 1 and isinstance(together, VelocityVecEnv):
                threads = dict(n_threads=arguments.n_threads)
                together = make_vec_env(env_id, n_envs, seed=0, vec_env_cls=VelocityVecEnv, vec_env_kwargs=threads)
            envs = {"dummy": make_represented_vec_env(env_id, n_envs, seed=0, vec_env_cls=DummyVecEnv), "together": together}
            times: dict[str, list[float]] = {name: [] for name in envs}
            space = together.action_space
            space.seed(0)
            for env in envs.values():
                env.reset()
                seconds_per_step(env, [np.array([space.sample() for _ in range(n_envs)]) for _ in range(5)])
            for _ in range(arguments.repeats):
                n_steps = max(2, arguments.transitions // n_envs)
                actions = [np.array([space.sample() for _ in range(n_envs)]) for _ in range(n_steps)]
                for name, env in envs.items():
                    times[name].append(seconds_per_step(env, actions))
            rates = {name: n_envs / statistics.median(values) for name, values in times.items()}
            row = f"{env_id:30} {n_envs:6} {rates['dummy']:12.0f}/s {rates['together']:12.0f}/s"
            print(f"{row}   {rates['together'] / rates['dummy']:5.2f}", flush=True)
            for env in envs.values():
                env.close()


if __name__ == "__main__":
    main()
