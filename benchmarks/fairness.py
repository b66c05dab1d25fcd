"""
What each welfare does to those who are few: HalfCheetah, one policy for eighty agents who want 1 m/s or so and twenty who want
1.4.

    python -m benchmarks.fairness
    python -m benchmarks.fairness --summary --picture docs/images/fairness.png

Every agent is paid within half a metre per second of its speed, so that something can be done for everybody. Results are
appended to ``results/fairness.json``, one entry per welfare and seed; what is there is not trained again. The summary has in
parentheses what one constant speed would give at best under the same welfare; the picture has the mean and the worst-off agent
of every welfare beside what constant speeds give.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.figures.pictures import MARKERS, save
from benchmarks.welfare import MUJOCO, PACKAGES, RESULTS, mean_and_error
from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.evaluation import WelfareEvaluation
from sb3_rmdp.common.files import save_whole
from sb3_rmdp.common.welfare import gini_coefficient, make_welfare
from sb3_rmdp.envs.velocity import velocity_rewards
from sb3_rmdp.plots.style import FAINT, label_axes, palette
from sb3_rmdp.vec_env import make_represented_vec_env

ENV_ID = "rmdp/HalfCheetahVelocity-v0"
MAX_VELOCITY = 10.0
TARGETS = np.concatenate([np.linspace(0.9, 1.1, 80), np.full(20, 1.4)])
#: Steps of an episode
HORIZON = 1000

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "utilitarian": ("utilitarian", {}),
    "nash": ("nash", {}),
    "alpha_fair, alpha = 3": ("alpha_fair", {"alpha": 3.0}),
    "gini": ("gini", {}),
    "egalitarian": ("egalitarian", {}),
    "utilitarian, minimum = 40": ("utilitarian", {"minimum": 40.0}),
}
FIGURES = ("mean", "worst", "nash", "gini")


def figures(utilities: np.ndarray) -> dict[str, float]:
    """
    :param utilities: of all agents
    :return: their mean, minimum, geometric mean and Gini coefficient
    """
    nash = make_welfare("nash", len(utilities)).value(utilities)
    return {
        "mean": float(utilities.mean()),
        "worst": float(utilities.min()),
        "nash": nash,
        "gini": gini_coefficient(utilities),
    }


def under_constant_speeds() -> np.ndarray:
    """
    :return: utilities of all agents at constant speeds from 0.5 to 2 m/s, (n_speeds, n_agents)
    """
    return HORIZON * velocity_rewards(np.linspace(0.5, 2.0, 1501)[:, None], TARGETS, MAX_VELOCITY)


def best_speed(name: str) -> dict[str, float]:
    """
    :param name: of a variant
    :return: what the best constant speed under its welfare gives; with a minimum, the best of those that keep it
    """
    kind, kwargs = VARIANTS[name]
    welfare = make_welfare(kind, len(TARGETS), kwargs)
    utilities = under_constant_speeds()
    values = np.array([welfare.value(row) for row in utilities])
    if welfare.minimum is not None:
        values[(utilities < welfare.minimum).any(axis=1)] = -np.inf
    return figures(utilities[values.argmax()])


def train(name: str, seed: int, transitions: int, n_eval_episodes: int) -> dict[str, Any]:
    """
    :param name: of a variant
    :param seed: of the training
    :param transitions: of the one policy
    :param n_eval_episodes: episodes of the evaluation
    :return: what is worth keeping
    """
    kind, welfare_kwargs = VARIANTS[name]
    env_kwargs: dict[str, Any] = {"targets": TARGETS, "max_velocity": MAX_VELOCITY}
    env = make_represented_vec_env(ENV_ID, 1, seed=seed, env_kwargs=env_kwargs)
    model = RepresentedPPO(
        "MlpPolicy", env, k=1, seed=seed, device="cpu", welfare=kind, welfare_kwargs=welfare_kwargs, **MUJOCO
    ).learn(transitions)
    alone = gym.make(ENV_ID, **env_kwargs)
    alone.reset(seed=10_000)
    result: WelfareEvaluation = evaluate_welfare(model, alone, n_eval_episodes)
    return {
        "welfare": name,
        "seed": seed,
        "transitions": transitions,
        "n_eval_episodes": n_eval_episodes,
        **{figure: round(value, 3) for figure, value in figures(result.agent_utilities).items()},
        "versions": {package: version(package) for package in PACKAGES} | {"python": platform.python_version()},
    }


def summary(runs: list[dict[str, Any]]) -> str:
    """
    :param runs: all trainings
    :return: a table in markdown: means over seeds with standard errors, and what a constant speed gives
    """
    lines = ["| welfare | seeds | mean | worst off | Nash | Gini coefficient |", "| --- | --- | --- | --- | --- | --- |"]
    for name in VARIANTS:
        own = [run for run in runs if run["welfare"] == name]
        best = best_speed(name)
        if own:
            cells = [f"{_told([run[figure] for run in own])} ({best[figure]:.2f})" for figure in FIGURES]
            lines.append(f"| {name} | {', '.join(str(run['seed']) for run in own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(runs: list[dict[str, Any]]) -> Figure:
    """
    :param runs: all trainings
    :return: mean against the worst-off agent: means over seeds with standard errors, the best constant speed under each
        welfare as a ring, and all constant speeds as a line
    """
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    utilities = under_constant_speeds()
    axes.plot(utilities.mean(axis=1), utilities.min(axis=1), color=FAINT, zorder=1, label="a constant speed")
    for (name, colour), marker in zip(zip(VARIANTS, palette(len(VARIANTS)), strict=True), MARKERS, strict=False):
        best = best_speed(name)
        axes.plot(best["mean"], best["worst"], marker, mfc="none", color=colour, markersize=10, zorder=2)
        own = [run for run in runs if run["welfare"] == name]
        if own:
            points = np.array([[run["mean"], run["worst"]] for run in own])
            errors = points.std(axis=0, ddof=1) / len(own) ** 0.5 if len(own) > 1 else np.zeros(2)
            x, y = points.mean(axis=0)
            axes.errorbar(x, y, errors[1], errors[0], marker, color=colour, capsize=2, markersize=5, zorder=3, label=name)
    # Slower than 0.9 and faster than 1.4 m/s everybody has less
    axes.set_xlim(left=60.0)
    axes.set_ylim(bottom=20.0)
    label_axes(axes, "mean utility", "utility of the worst-off agent")
    axes.legend(frameon=False, title="filled: learned, open: best constant speed", alignment="left")
    return figure


def _told(values: list[float]) -> str:
    return mean_and_error(values) if len(values) > 1 else f"{values[0]:.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    """
    Command line.

    :param argv: arguments; by default those of the process
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fairness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--welfare", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help="some only")
    parser.add_argument("--transitions", type=int, default=400_000, help="of the policy")
    parser.add_argument("--episodes", type=int, default=10, help="of the evaluation")
    parser.add_argument("--out", type=Path, default=RESULTS / "fairness.json")
    parser.add_argument("--summary", action="store_true", help="print the table of what is there, and train nothing")
    parser.add_argument("--picture", type=Path, help="draw it in this PNG file")
    arguments = parser.parse_args(argv)
    runs = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else []
    torch.set_num_threads(1)
    for seed in () if arguments.summary else arguments.seeds:
        for name in arguments.welfare:
            if any((run["welfare"], run["seed"], run["transitions"]) == (name, seed, arguments.transitions) for run in runs):
                continue
            runs.append(train(name, seed, arguments.transitions, arguments.episodes))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            text = (json.dumps(runs, indent=1) + "\n").encode()
            save_whole(arguments.out, lambda file, text=text: file.write(text))  # type: ignore[misc]
    print(summary(runs))
    if arguments.picture:
        save(picture(runs), arguments.picture)


if __name__ == "__main__":
    main()
