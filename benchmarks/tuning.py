"""
One training with one choice of hyperparameters: what the entries of ``hyperparams/rppo.yml`` were chosen by.

    python benchmarks/tuning.py rmdp/HopperVelocity-v0 std-1 300000

Appendix B of the paper but for the choice; k = 5, seed 0, five episodes per representative at the end.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.utils import LinearSchedule

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.callbacks import AnnealCallback

CHOICES: dict[str, dict[str, Any]] = {
    "std-1": dict(policy_kwargs=dict(log_std_init=-1.0), ent_coef=1e-3),
    "std0": dict(policy_kwargs=dict(log_std_init=0.0), ent_coef=1e-3),
}
K = 5


def main(env_id: str, choice: str, transitions: str) -> None:
    """
    :param env_id: environment
    :param choice: one of :data:`CHOICES`
    :param transitions: per policy
    """
    torch.set_num_threads(1)
    kwargs = CHOICES[choice]
    schedule = LinearSchedule(3e-4, 1e-4, 1.0)
    model = RepresentedPPO("MlpPolicy", env_id, k=K, seed=0, device="cpu", learning_rate=schedule, **kwargs)
    start = time.perf_counter()
    model.learn(int(transitions) * K, callback=AnnealCallback("ent_coef", 1e-3, 1e-4))
    row = {"env": env_id, "choice": choice, "transitions_per_policy": int(transitions)}
    row["seconds"] = round(time.perf_counter() - start)
    for name, deterministic in (("deterministic", True), ("stochastic", False)):
        env = gym.make(env_id)
        env.reset(seed=10_000)
        row[name] = str(evaluate_welfare(model, env, 5, deterministic))
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
