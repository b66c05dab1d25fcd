"""
Train one model and measure its welfare on the way: one JSON file per run.

    python benchmarks/welfare.py --env rmdp/HalfCheetahVelocity-v0 -k 5 --assignment em --seed 0

Runs of several seeds or assignments are summarised, as a table with means and standard errors over seeds, by

    python benchmarks/welfare.py --summary
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.utils import LinearSchedule

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.callbacks import AnnealCallback

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("sb3_rmdp", "stable_baselines3", "gymnasium", "mujoco", "numpy", "torch")

#: Appendix B of the paper, but a log standard deviation that starts at -1
MUJOCO: dict[str, Any] = dict(
    learning_rate=LinearSchedule(3e-4, 1e-4, 1.0), ent_coef=1e-3, policy_kwargs=dict(log_std_init=-1.0)
)
#: As the reference implementation: undiscounted, raw observations, an entropy bonus that falls from 5e-2 to 1e-3
GRID: dict[str, Any] = dict(
    learning_rate=LinearSchedule(5e-4, 1e-4, 1.0), ent_coef=5e-2, gamma=1.0, normalize_observations=False
)


def train_and_evaluate(
    env_id: str, k: int, assignment: str, seed: int, transitions: int, checkpoints: int, n_eval_episodes: int
) -> dict[str, Any]:
    """
    :param env_id: environment
    :param k: number of representatives
    :param assignment: name of the assignment
    :param seed: seed of the run
    :param transitions: transitions per policy
    :param checkpoints: number of evaluations, equally spaced, the last at the end
    :param n_eval_episodes: episodes per representative and evaluation
    :return: everything that is worth keeping of the run
    """
    grid = "ResourceGathering" in env_id
    hyperparams = GRID if grid else MUJOCO
    model = RepresentedPPO("MlpPolicy", env_id, k=k, assignment=assignment, seed=seed, device="cpu", **hyperparams)
    curve: list[dict[str, Any]] = []
    start = time.perf_counter()

    def evaluate_at_checkpoints(local_names: dict[str, Any], _: dict[str, Any]) -> bool:
        if model.num_timesteps >= (len(curve) + 1) * transitions * k // checkpoints:
            curve.append(evaluation_row(model, env_id, n_eval_episodes))
            print(json.dumps(curve[-1]), file=sys.stderr, flush=True)
        return True

    callbacks: list[BaseCallback] = [ConvertCallback(evaluate_at_checkpoints)]
    if grid:
        callbacks.append(AnnealCallback("ent_coef", 5e-2, 1e-3))
    model.learn(transitions * k, callback=callbacks)
    return {
        "command": " ".join(["python", *sys.argv]),
        "env": env_id,
        "k": k,
        "n_agents": model.n_agents,
        "assignment": assignment,
        "seed": seed,
        "transitions_per_policy": transitions,
        "n_eval_episodes": n_eval_episodes,
        "seconds": round(time.perf_counter() - start),
        "curve": curve,
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
    }


def evaluation_row(model: RepresentedPPO, env_id: str, n_eval_episodes: int) -> dict[str, Any]:
    """
    :param model: the model as it is now
    :param env_id: environment
    :param n_eval_episodes: episodes per representative
    :return: welfare of modes and of samples of the policies, group sizes
    """
    assert model.k is not None
    row: dict[str, Any] = {"transitions_per_policy": model.num_timesteps // model.k}
    for name, deterministic in (("deterministic", True), ("stochastic", False)):
        env = gym.make(env_id)
        env.reset(seed=10_000)
        result = evaluate_welfare(model, env, n_eval_episodes, deterministic)
        row[name] = {
            "social_welfare": round(result.social_welfare, 3),
            "standard_error": round(result.standard_error, 3),
            "greedy_social_welfare": round(result.greedy_social_welfare, 3),
            "optimum_or_bound": result.optimum,
            "share": round(result.share_of_optimum, 4) if result.share_of_optimum is not None else None,
            "agents_with_nothing": int((result.agent_utilities < 1.0).sum()),
        }
    row["group_sizes"] = np.bincount(model.assignment.representatives, minlength=model.k).tolist()
    return row


def summary() -> str:
    """Markdown table of all results: mean and standard error over seeds of the last evaluation of each run."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for path in sorted(RESULTS.glob("welfare-*.json")):
        run = json.loads(path.read_text())
        groups[run["env"], run["k"], run["n_agents"], run["transitions_per_policy"], run["assignment"]].append(run)
    lines = [
        "| environment | k | n | transitions per policy | assignment | seeds | deterministic | share | stochastic | share |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, runs in sorted(groups.items()):
        cells = [str(part) for part in key] + [", ".join(str(run["seed"]) for run in runs)]
        for kind in ("deterministic", "stochastic"):
            last = [run["curve"][-1][kind] for run in runs]
            cells.append(mean_and_error([row["social_welfare"] for row in last]))
            cells.append(mean_and_error([100 * row["share"] for row in last]) + " %")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean_and_error(values: list[float]) -> str:
    """
    :param values: one per seed
    :return: their mean and its standard error
    """
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):.2f} ± {error:.2f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="rmdp/HalfCheetahVelocity-v0", help="gymnasium id")
    parser.add_argument("-k", type=int, default=5, help="number of representatives")
    parser.add_argument("--assignment", default="em", help="name of the assignment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--transitions", type=int, default=1_000_000, help="transitions per policy")
    parser.add_argument("--checkpoints", type=int, default=4, help="evaluations on the way")
    parser.add_argument("--episodes", type=int, default=5, help="episodes per representative and evaluation")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch; results depend on it in the last bits")
    parser.add_argument("--summary", action="store_true", help="print the table of all results and stop")
    arguments = parser.parse_args()
    if arguments.summary:
        print(summary())
        return
    torch.set_num_threads(arguments.threads)
    run = train_and_evaluate(
        arguments.env,
        arguments.k,
        arguments.assignment,
        arguments.seed,
        arguments.transitions,
        arguments.checkpoints,
        arguments.episodes,
    )
    name = f"welfare-{arguments.env.split('/')[-1]}-k{arguments.k}-{arguments.assignment}-seed{arguments.seed}.json"
    (RESULTS / name).write_text(json.dumps(run, indent=1) + "\n")
    print(f"wrote {RESULTS / name}")


if __name__ == "__main__":
    main()
