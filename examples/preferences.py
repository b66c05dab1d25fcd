"""
Four gaits for 10 000 users who weigh speed, economy and comfort differently: train on HalfCheetah, show whom each gait is for.

Rewards are factored: a step reports three objectives, and what it is worth to a user follows from his preferences. So the
number of users hardly matters; try a million.

    python examples/preferences.py --users 10_000 --timesteps 500_000 --seed 0 --out runs/preferences
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.callbacks import WelfareProgressBarCallback
from sb3_rmdp.envs import FactoredReward, check_represented_env

K = 4
OBJECTIVES = ("speed", "economy", "comfort")
FULL_SPEED = 4.0  # m/s, from where on faster is no better


def objectives(obs: np.ndarray, action: np.ndarray, next_obs: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """Speed forward, energy saved and a ride that does not bounce: a perfect episode of 1000 steps is worth 100 by each."""
    speed = np.clip(info["x_velocity"] / FULL_SPEED, -1.0, 1.0)
    economy = 1.0 - np.mean(np.square(np.clip(action, -1.0, 1.0)))
    comfort = max(1.0 - abs(next_obs[9]), 0.0)  # of the vertical speed in m/s
    return 0.1 * np.array([speed, economy, comfort])


def main(argv: Sequence[str] | None = None) -> None:
    """
    :param argv: command line, that of the process by default
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000, help="number of users, at least 4 (default: 10_000)")
    parser.add_argument("--timesteps", type=int, default=500_000, help="transitions of all gaits (default: 500_000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/preferences"), help="folder of the model")
    arguments = parser.parse_args(argv)

    # A row per user that sums to 1: most have one or two objectives that they care for. Users have a seed of their own
    preferences = np.random.RandomState(0).dirichlet(np.full(len(OBJECTIVES), 0.5), size=arguments.users)
    env = FactoredReward(gym.make("HalfCheetah-v5"), objectives, preferences)
    check_represented_env(env)

    torch.set_num_threads(1)  # fastest for small networks, and the same result at every run
    model = RepresentedPPO(
        "MlpPolicy",
        env,
        k=K,
        ent_coef=1e-3,
        policy_kwargs=dict(log_std_init=-1.0),
        seed=arguments.seed,
        device="cpu",
    )
    model.learn(arguments.timesteps, callback=WelfareProgressBarCallback())
    model.save(arguments.out / "model")

    result = evaluate_welfare(model, env, n_eval_episodes=2)
    print(f"{result}, where 100 would be everything at once")
    # Utilities are preferences times what a gait reaches, so that it can be read from them
    reached = np.linalg.lstsq(env.reward_weights.astype(np.float64), result.utilities, rcond=None)[0]
    for j in range(K):
        served = preferences[result.assignment == j]
        about = listed(served.mean(axis=0), ".2f") if len(served) else "nobody's wishes"
        print(f"gait {j} serves {len(served)} users, who weigh {about}: it reaches {listed(reached[:, j], '.0f')} of 100")
    print(f"wrote {arguments.out}/model.zip")


def listed(numbers: np.ndarray, form: str) -> str:
    """
    :param numbers: one per objective
    :param form: how a number is to be printed
    :return: names and numbers
    """
    return ", ".join(f"{name} {number:{form}}" for name, number in zip(OBJECTIVES, numbers, strict=True))


if __name__ == "__main__":
    main()
