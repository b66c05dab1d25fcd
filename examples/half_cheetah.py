"""
Five gaits for 100 agents who each want to be carried at a speed of their own: train on HalfCheetah, show who got which.

    python examples/half_cheetah.py --timesteps 5_000_000 --seed 0 --out runs/half_cheetah
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.callbacks import KeepBestCallback, WelfareProgressBarCallback
from sb3_rmdp.plots import plot_assignment_histogram
from sb3_rmdp.vec_env import make_represented_vec_env

ENV_ID = "rmdp/HalfCheetahVelocity-v0"
K = 5


def main(argv: Sequence[str] | None = None) -> None:
    """
    :param argv: command line, that of the process by default
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=5_000_000, help="transitions of all gaits (default: 5_000_000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/half_cheetah"), help="folder of model and picture")
    arguments = parser.parse_args(argv)

    torch.set_num_threads(1)  # fastest for small networks, and the same result at every run
    model = RepresentedPPO(
        "MlpPolicy",
        make_represented_vec_env(ENV_ID, K, env_kwargs={"max_episode_steps": 500}),  # not 1000: to start, and fall, more often
        k=K,
        learning_rate=LinearSchedule(3e-4, 1e-5, 1.0),
        ent_coef=LinearSchedule(5e-3, 0.0, 1.0),  # to go on trying how to start where it falls
        normalize_advantage="rollout",  # a fall is seldom, and costs a hundred times what any other step does
        policy_kwargs=dict(log_std_init=-1.0),  # agents are paid in a narrow window of speeds, which noise leaves
        seed=arguments.seed,
        device="cpu",
    )
    model.learn(arguments.timesteps, callback=[WelfareProgressBarCallback(), KeepBestCallback()])
    model.save(arguments.out / "model")

    # One copy per gait, so that all of them run at the same time
    env = make_vec_env(ENV_ID, n_envs=K, seed=10_000)
    targets = env.get_attr("targets")[0]
    result = evaluate_welfare(model, env, n_eval_episodes=2)
    print(result)
    for j in range(K):
        served = np.sort(targets[result.assignment == j])
        speeds = f"{served[0]:.2f} to {served[-1]:.2f} m/s" if len(served) else "nobody"
        utility = result.agent_utilities[result.assignment == j].mean() if len(served) else 0.0
        print(f"gait {j} serves {len(served)} agents, who want {speeds} and get {utility:.1f} of 100")
    plot_assignment_histogram(targets, result.assignment, k=K, path=arguments.out / "assignment.png")
    print(f"wrote {arguments.out}/model.zip and assignment.png")


if __name__ == "__main__":
    main()
