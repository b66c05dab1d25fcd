"""
From training to approval to service: how many gaits, what is approved, what is handed over, and who serves a new user.

    python examples/from_training_to_service.py --timesteps 200_000 --k 1 2 3 5 --out runs/service

Trains HalfCheetah for 100 agents with several numbers of gaits, takes the smallest that is nearly as good as the largest, and
leaves in the folder: the curve (budget.png), a report for a reviewer (report.html), the gaits as stock PPO and ONNX files
(service/), and the episodes that new users are judged by (episodes.npz). A training that was interrupted goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.approval import write_report
from sb3_rmdp.budget import budget_curve
from sb3_rmdp.envs.velocity import velocity_rewards
from sb3_rmdp.export import export, load_exported
from sb3_rmdp.service import record_episodes
from sb3_rmdp.vec_env import make_represented_vec_env

ENV_ID = "rmdp/HalfCheetahVelocity-v0"
#: Speed that a user wants who was not in training, in m/s
NEW_WISH = 1.3


def new_user(obs: np.ndarray, action: np.ndarray, next_obs: np.ndarray, info: dict) -> float:
    """Pays as the agents do, for another speed."""
    return float(velocity_rewards(info["x_velocity"], np.array([NEW_WISH]), max_velocity=4.0)[0])


def main(argv: Sequence[str] | None = None) -> None:
    """
    :param argv: command line, that of the process by default
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=200_000, help="transitions of each gait and model (default: 200_000)")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 2, 3, 5], help="numbers of gaits (default: 1 2 3 5)")
    parser.add_argument("--episodes", type=int, default=5, help="episodes of each gait and evaluation (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the trainings (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/service"), help="folder of everything")
    arguments = parser.parse_args(argv)
    out, episodes, console = arguments.out, arguments.episodes, Console(soft_wrap=True)
    torch.set_num_threads(1)  # fastest for small networks, and the same result at every run

    # 1. How many?
    curve = budget_curve(
        ENV_ID, arguments.k, arguments.timesteps, seeds=[arguments.seed], n_eval_episodes=episodes, folder=out, progress=True
    )
    curve.save(out / "budget.json")
    curve.plot(out / "budget.png")
    console.print(curve.table(), *curve.summary(), sep="\n")
    k = curve.smallest_k() or arguments.k[-1]
    file = out / f"k{k}_seed{arguments.seed}.zip"
    env = make_represented_vec_env(ENV_ID, k, seed=10_000)
    model = RepresentedPPO.load(file, env=env, device="cpu")

    # 2. Is it fair?
    result = evaluate_welfare(model, env, episodes)
    print(f"k = {k}: {result}, worst off {result.worst_utility:.2f}, Gini coefficient {result.gini:.2f}")

    # 3. What is approved, and handed over?
    write_report(file, ENV_ID, out / "report.html", n_eval_episodes=episodes, seeds=2)
    export(file, out / "service", force=True)
    served = load_exported(out / "service")
    observation, _ = gym.make(ENV_ID).reset(seed=0)
    action, _ = served.predict(observation, agent=7)
    print(f"agent 7 is served by representative {served.representative_of(7)}, whose first action is {action.round(2)}")

    # 4. Who serves somebody new?
    recorded = record_episodes(model, env, max(episodes, 2))
    recorded.save(out / "episodes.npz")
    print(f"somebody who wants {NEW_WISH} m/s: {model.assign(new_user, recorded, best_possible=100.0)}")
    print(f"wrote {out}/budget.png, report.html, service/ and episodes.npz")


if __name__ == "__main__":
    main()
