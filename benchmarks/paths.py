"""
Whether what makes trainings fast changes what they learn: welfare of one way and of the other, over seeds.

    python -m benchmarks.paths paths       # all that is fast, against DummyVecEnv, the actor in torch, gradients by autograd
    python -m benchmarks.paths critics     # critics of few values and factored rewards, against one value per agent

Every training is written to benchmarks/results/paths.json as it ends, beside those that are there; one of the same name, seed
and length is replaced.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.welfare import GRID, MUJOCO, PACKAGES, RESULTS
from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common import collection
from sb3_rmdp.common.callbacks import AnnealCallback
from sb3_rmdp.represented_ppo.manual_gradients import ManualGradients
from sb3_rmdp.vec_env import make_represented_vec_env


@dataclass(frozen=True)
class Variant:
    """
    One way to train.

    :param name: of it
    :param plain: without all that is fast
    :param model: arguments of the model
    :param env: arguments of the environment
    """

    name: str
    plain: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """
    Ways to train on one task.

    :param env_id: the task
    :param k: number of representatives
    :param transitions: per policy
    :param n_eval_episodes: per representative
    :param variants: the ways
    """

    env_id: str
    k: int
    transitions: int
    n_eval_episodes: int
    variants: tuple[Variant, ...]


COMPARISONS = {
    "paths": Comparison("rmdp/ResourceGathering-v0", 3, 150_000, 20, (Variant("fast"), Variant("plain", plain=True))),
    "critics": Comparison(
        "rmdp/HalfCheetahVelocity-v0",
        5,
        500_000,
        5,
        (
            Variant("full"),
            *(Variant(f"rank {rank}", model={"critic_rank": rank}) for rank in (8, 16, 32, 64)),
            Variant("factored", env={"n_features": 111}),
        ),
    ),
}


@contextmanager
def plain_path() -> Iterator[None]:
    """Models that learn here sample actions in torch and leave gradients to autograd."""
    with patch.object(ManualGradients, "fits", return_value=False):
        with patch.object(collection, "numpy_actor", return_value=None):
            yield


def train(comparison: Comparison, variant: Variant, seed: int, transitions: int) -> RepresentedPPO:
    """
    :param comparison: task
    :param variant: way to train
    :param seed: of the model and the environments
    :param transitions: per policy
    :return: the trained model
    """
    k, env_id = comparison.k, comparison.env_id
    env_class = DummyVecEnv if variant.plain else None
    env = make_represented_vec_env(env_id, k, seed=seed, env_kwargs=variant.env, vec_env_cls=env_class)
    grid = "ResourceGathering" in env_id
    hyperparams = GRID if grid else MUJOCO
    model = RepresentedPPO("MlpPolicy", env, k=k, seed=seed, device="cpu", assignment="em", **hyperparams, **variant.model)
    callback = AnnealCallback("ent_coef", 5e-2, 1e-3) if grid else None
    if variant.plain:
        with plain_path():
            model.learn(transitions * k, callback=callback)
    else:
        model.learn(transitions * k, callback=callback)
    env.close()
    return model


def welfare(model: RepresentedPPO, env_id: str, n_episodes: int, deterministic: bool) -> float:
    """
    Mean return over agents. Unlike ``evaluate_welfare`` it takes a task that differs from the trained one in how rewards are
    told: all variants are judged by every agent's own rewards.

    :param model: a model
    :param env_id: task
    :param n_episodes: per representative
    :param deterministic: take modes instead of samples
    :return: welfare
    """
    env = gym.make(env_id)
    served_by = model.assignment.representatives
    utilities = np.zeros(len(served_by))
    obs, _ = env.reset(seed=10_000)
    for j in range(model.k):
        for _ in range(n_episodes):
            over = False
            while not over:
                action, _ = model.predict(obs, deterministic=deterministic, representative=j)
                obs, _, terminated, truncated, info = env.step(action)
                utilities += np.where(served_by == j, info["reward_vector"], 0.0)
                over = terminated or truncated
            obs, _ = env.reset()
    env.close()
    return float(utilities.mean() / n_episodes)


def run(name: str, variant: Variant, seed: int, transitions: int, n_episodes: int) -> dict[str, Any]:
    """
    :param name: of the comparison
    :param variant: way to train
    :param seed: of the training
    :param transitions: per policy
    :param n_episodes: per representative
    :return: welfare and time of one training
    """
    comparison = COMPARISONS[name]
    start = time.perf_counter()
    model = train(comparison, variant, seed, transitions)
    seconds = time.perf_counter() - start
    result: dict[str, Any] = {"comparison": name, "variant": variant.name, "seed": seed, "transitions_per_policy": transitions}
    result |= {"env": comparison.env_id, "k": comparison.k, "n_eval_episodes": n_episodes, "seconds": round(seconds, 1)}
    for kind, deterministic in (("deterministic", True), ("stochastic", False)):
        result[kind] = round(welfare(model, comparison.env_id, n_episodes, deterministic), 3)
    return result


def key(result: dict[str, Any]) -> tuple[Any, ...]:
    """
    :param result: of a training
    :return: which one it is
    """
    return tuple(result[name] for name in ("comparison", "variant", "seed", "transitions_per_policy"))


def summary(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    :param runs: all trainings
    :return: means over seeds with standard errors, one entry per variant and length
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in runs:
        comparison, variant, _, transitions = key(result)
        groups.setdefault((comparison, variant, transitions), []).append(result)
    entries = []
    for (comparison, variant, transitions), group in groups.items():
        entry = {"comparison": comparison, "variant": variant, "transitions_per_policy": transitions}
        entry["seeds"] = [result["seed"] for result in group]
        for kind in ("deterministic", "stochastic"):
            values = [result[kind] for result in group]
            error = round(float(np.std(values, ddof=1)) / len(values) ** 0.5, 3) if len(values) > 1 else None
            entry[kind] = {"mean": round(float(np.mean(values)), 3), "standard_error": error}
        entries.append(entry)
    return entries


def main(argv: Sequence[str] | None = None) -> None:
    """
    Command line.

    :param argv: arguments; by default those of the process
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paths", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", choices=COMPARISONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="some of the ways only")
    parser.add_argument("--transitions", type=int, help="per policy; 150000 for paths, 500000 for critics")
    parser.add_argument("--episodes", type=int, help="per representative and evaluation; 20 for paths, 5 for critics")
    parser.add_argument("--out", type=Path, default=RESULTS / "paths.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    comparison = COMPARISONS[arguments.comparison]
    known = [variant.name for variant in comparison.variants]
    unknown = sorted(set(arguments.variants or []) - set(known))
    if unknown:
        parser.error(f"--variants {unknown}: {arguments.comparison} has {known}")
    report = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {"runs": []}
    versions = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    for seed in arguments.seeds:
        for variant in comparison.variants:
            if variant.name not in (arguments.variants or known):
                continue
            result = run(
                arguments.comparison,
                variant,
                seed,
                arguments.transitions or comparison.transitions,
                arguments.episodes or comparison.n_eval_episodes,
            )
            print(json.dumps(result), file=sys.stderr, flush=True)
            kept = [old for old in report["runs"] if key(old) != key(result)]
            runs = [*kept, result | {"versions": versions}]
            report = {"summary": summary(runs), "runs": runs}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for entry in report["summary"]:
        if entry["comparison"] == arguments.comparison:
            print(json.dumps(entry))


if __name__ == "__main__":
    main()
