"""A budget curve of models that were trained before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.budget.curve import BudgetCurve
from sb3_rmdp.budget.describing import described
from sb3_rmdp.budget.task import EnvSource, Task, evaluate_anew
from sb3_rmdp.budget.training import row_of
from sb3_rmdp.commands import load_model, load_with_env
from sb3_rmdp.common.seeds import EVALUATION_SEED
from sb3_rmdp.envs.contract import integer


def budget_of_models(
    models: Sequence[str | Path | RepresentedPPO],
    env: EnvSource | None = None,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    env_kwargs: Mapping[str, Any] | None = None,
    device: str = "auto",
    trusted: bool = False,
) -> BudgetCurve:
    """
    Evaluate models and put them on a curve, by the k that each of them has. Several of one k are seeds.

    :param models: models, or files of models, in any order
    :param env: environment, see :func:`budget_curve`; ``None`` if all are files in run folders of RL Zoo, which tell
    :param n_eval_episodes: episodes per policy
    :param deterministic: evaluate the modes of the policies instead of samples
    :param env_kwargs: arguments of the environment
    :param device: of models that are loaded
    :param trusted: whether code in files of models and their run folders may run
    :return: the curve
    :raises ValueError: if a file is none of a model, models are for different agents, or the environment has others
    :raises FileNotFoundError: if a file is missing
    """
    integer("n_eval_episodes", n_eval_episodes, minimum=1)
    if not models:
        raise ValueError("models is empty: give at least one")
    names = [str(model) if isinstance(model, (str, Path)) else f"model {i}" for i, model in enumerate(models)]
    twice = [name for name, number in Counter(names).items() if number > 1]
    if twice:
        raise ValueError(f"{twice[0]} is there twice: give each model once")
    task = None if env is None else Task(env, dict(env_kwargs or {}))
    loaded: list[tuple[RepresentedPPO, VecEnv, str]] = []
    try:
        for model, name in zip(models, names, strict=True):
            loaded.append(_load(model, name, task, dict(env_kwargs or {}), device, trusted))
            _check_same_agents(loaded[0][0], names[0], loaded[-1][0], name)
        seeds = _seeds([model for model, _, _ in loaded])
        rows = []
        for (model, vec_env, _), given, name, seed in zip(loaded, models, names, seeds, strict=True):
            result = evaluate_anew(model, vec_env, n_eval_episodes, deterministic)
            rows.append(row_of(model, result, seed, name if isinstance(given, (str, Path)) else None))
    finally:
        for _, vec_env, _ in loaded:
            vec_env.close()
    rows.sort(key=lambda row: (row.k, row.seed))
    return BudgetCurve(
        env=loaded[0][2],
        n_agents=loaded[0][0].n_agents,
        rows=tuple(rows),
        n_eval_episodes=n_eval_episodes,
        deterministic=deterministic,
        settings={"env": loaded[0][2], "env_kwargs": described(dict(env_kwargs or {})), "models": names},
    )


def _load(
    model: str | Path | RepresentedPPO, name: str, task: Task | None, env_kwargs: dict[str, Any], device: str, trusted: bool
) -> tuple[RepresentedPPO, VecEnv, str]:
    """A model, an environment for its evaluation, and the name of that."""

    if isinstance(model, (str, Path)) and (task is None or isinstance(task.env, str)):
        env_id = None if task is None else str(task.env)
        found, env, run_folder = load_with_env(Path(model), env_id, env_kwargs, None, EVALUATION_SEED, None, device, trusted)
        name = str(run_folder.env_id) if run_folder is not None else str(env_id)
        return found, env, name.rpartition(":")[2]
    if task is None:
        raise ValueError(f"{name} does not tell its environment: pass env")
    found = load_model(Path(model), device=device, trusted=trusted) if isinstance(model, (str, Path)) else model
    return found, task.make(found.k), task.name


def _check_same_agents(first: RepresentedPPO, first_name: str, other: RepresentedPPO, name: str) -> None:
    if first.population != other.population:
        raise ValueError(
            f"{name} was made for other agents than {first_name}, {other.population} and {first.population}: models of one "
            "curve must serve the same agents"
        )


def _seeds(models: Sequence[RepresentedPPO]) -> list[int]:
    """Seeds of the trainings; where they do not tell models of one k apart, numbers of these in their order."""
    of_k: dict[int, list[int | None]] = {}
    numbers = []
    for model in models:
        seeds = of_k.setdefault(model.k, [])
        numbers.append(len(seeds))
        seeds.append(model.seed)
    told_apart = all(None not in seeds and len(set(seeds)) == len(seeds) for seeds in of_k.values())
    return [int(model.seed or 0) if told_apart else number for model, number in zip(models, numbers, strict=True)]
