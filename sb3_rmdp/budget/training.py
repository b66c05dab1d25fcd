"""Train models for several numbers of policies, each from the one before, and evaluate them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from stable_baselines3.common.callbacks import BaseCallback

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.budget.curve import BudgetCurve, BudgetRow
from sb3_rmdp.budget.describing import described
from sb3_rmdp.budget.folder import ModelFiles, folder_for
from sb3_rmdp.budget.growth import ancestors, check_can_grow, warm_start
from sb3_rmdp.budget.task import (
    NO_SETTINGS,
    EnvSource,
    Task,
    check_arguments,
    check_numbers_of_policies,
    tuned,
)
from sb3_rmdp.common.assignment import DEFAULT_ASSIGNMENT
from sb3_rmdp.common.population import population_of
from sb3_rmdp.common.seeds import check_training_seed
from sb3_rmdp.common.whole_files import remove_abandoned
from sb3_rmdp.envs.contract import integer
from sb3_rmdp.zoo.hyperparams import MAX_EPISODE_STEPS, SCHEDULES

#: Steps of a vec env between two movements of the progress bar
STEPS_PER_MOVE = 50

#: Seeds of a curve at most: more are a mistake
MOST_SEEDS = 100_000


@dataclass(frozen=True)
class Job:
    """
    One model to train.

    :param k: number of representatives
    :param seed: of the training
    :param started_from: numbers of representatives of the models that it goes back to
    :param files: where it is kept, if it is
    """

    k: int
    seed: int
    started_from: tuple[int, ...]
    files: ModelFiles | None

    @property
    def is_finished(self) -> bool:
        """Whether there is no need to train it."""
        return self.files is not None and self.files.finished


def budget_curve(
    env: EnvSource,
    k: int | Sequence[int] = (1, 2, 3, 5),
    transitions_per_policy: int | None = None,
    seeds: int | Sequence[int] = 1,
    warm: bool = True,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    model_kwargs: Mapping[str, Any] | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    callback: BaseCallback | Sequence[BaseCallback] | None = None,
    progress: bool = False,
) -> BudgetCurve:
    """
    Train models for several numbers of policies and measure welfare against them.

    Everything that can be wrong is looked at before anything is trained. With a folder, models are kept as they are finished,
    ``k3_seed0.zip`` with a record ``k3_seed0.json``, and those that are there are not trained again. One curve at a time may
    train into a folder.

    :param env: a gymnasium id, an environment that ``gymnasium.make`` made, or a function that makes one
    :param k: numbers of policies, rising, at most the number of agents
    :param transitions_per_policy: length of each training, per policy; by default that of the tuned hyperparameters. Rounded
        up to whole rollouts
    :param seeds: number of trainings for each k, with seeds 0, 1, ...; or a list of seeds
    :param warm: start each model from that of the k before, see :func:`warm_start`. The more policies, the more transitions
        their models then go back to: rows and table say how many
    :param n_eval_episodes: episodes per policy in evaluations
    :param deterministic: evaluate the modes of the policies instead of samples
    :param model_kwargs: arguments of RepresentedPPO, in the place of the tuned ones in ``hyperparams/rppo.yml``, and
        ``max_episode_steps``, a time limit for trainings alone
    :param env_kwargs: arguments of the environment
    :param folder: where models are kept, and found if they are finished; by default nowhere. Functions among the arguments
        are then told apart by their code and by what they hold, see :mod:`sb3_rmdp.budget.describing`
    :param callback: one or more for all trainings
    :param progress: show a progress bar on stderr, if that is a terminal
    :return: the curve
    :raises ValueError: if an argument is wrong, cannot be told from others, or the folder holds models with other settings, or
        another curve is being made in it
    :raises OSError: if a model cannot be kept in the folder, as on a full disk
    """
    known = tuned(Task(env).id)
    hyperparams = {**known.arguments, **(model_kwargs or {})}
    task = Task(env, {**known.env_kwargs, **(env_kwargs or {})}, hyperparams.get(MAX_EPISODE_STEPS))
    ks = check_numbers_of_policies(k)
    seed_list = _seeds(seeds)
    for seed in seed_list:
        check_training_seed(seed, ks[-1], ks[-1])
    transitions = known.transitions_per_policy
    if transitions_per_policy is not None:
        transitions = integer("transitions_per_policy", transitions_per_policy, minimum=1)
    integer("n_eval_episodes", n_eval_episodes, minimum=1)
    arguments = check_arguments({name: value for name, value in hyperparams.items() if name != MAX_EPISODE_STEPS})
    if warm and len(ks) > 1:
        check_can_grow(arguments.get("assignment", DEFAULT_ASSIGNMENT))
    population = _check_models(task, ks, arguments)

    # By their names alone functions would find models that others have made
    strict = folder is not None
    settings = {
        "env": task.id or described(task.env, strict),
        "env_kwargs": described(task.env_kwargs, strict),
        **population,
        "transitions_per_policy": transitions,
        "model_kwargs": described({name: item for name, item in hyperparams.items() if name not in NO_SETTINGS}, strict),
    }

    def find_jobs() -> list[Job]:
        return [
            _job(number, seed, ks[:index] if warm else (), settings, folder)
            for seed, (index, number) in itertools.product(seed_list, enumerate(ks))
        ]

    callbacks = [callback] if isinstance(callback, BaseCallback) else list(callback or [])
    rows = []
    with contextlib.ExitStack() as stack:
        jobs = find_jobs()
        if folder is not None:
            remove_abandoned(Path(folder))
        if folder is not None and not all(job.is_finished for job in jobs):
            stack.enter_context(folder_for(folder))
            jobs = find_jobs()  # another process may have finished some of them meanwhile
        bar = stack.enter_context(_progress([job for job in jobs if not job.is_finished], transitions, progress))
        model = None
        for job in jobs:
            model = _trained(job, task, model if job.started_from else None, transitions, arguments, callbacks, bar)
            bar.say(f"evaluating k={job.k} seed={job.seed}")
            result = task.evaluate(model, n_eval_episodes, deterministic)
            rows.append(row_of(model, result, job.seed, None if job.files is None else str(job.files.model)))
    return BudgetCurve(
        env=task.name,
        n_agents=population["n_agents"],
        rows=tuple(rows),
        n_eval_episodes=n_eval_episodes,
        deterministic=deterministic,
        settings={**settings, "k": list(ks), "seeds": list(seed_list), "warm": warm},
    )


def row_of(model: RepresentedPPO, result: Any, seed: int, path: str | None) -> BudgetRow:
    """
    :param model: a model
    :param result: its evaluation
    :param seed: of its training
    :param path: its file, if it has one
    :return: what the curve is made of
    """
    before = ancestors(model)
    return BudgetRow.of_evaluation(
        result,
        seed,
        transitions_per_policy=model.num_timesteps / model.k,
        transitions_in_total=model.num_timesteps + sum(transitions for _, transitions in before),
        started_from=tuple(k for k, _ in before),
        model=path,
    )


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if not isinstance(seeds, Sequence):
        return tuple(range(integer("seeds", seeds, minimum=1, maximum=MOST_SEEDS)))
    numbers = tuple(integer("seeds", seed, minimum=0) for seed in seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds={list(seeds)}: give a number of seeds, or a list in which each is there once")
    return numbers


def _check_models(task: Task, ks: Sequence[int], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Make every kind of model once, with next to no memory; returns who the agents are."""
    env = task.make_to_train(1)
    try:
        population = population_of(env)
        check_numbers_of_policies(ks, population.n_agents)
        integer("n_steps", arguments.get("n_steps", 2), minimum=1)
        # Buffers are made for the steps, and batches warn if they are larger
        small = {**arguments, "n_steps": 2, "batch_size": 2, "verbose": 0, "tensorboard_log": None}
        for k in ks:
            RepresentedPPO(env=env, k=k, **small)
    finally:
        env.close()
    return population._asdict()


def _job(k: int, seed: int, started_from: tuple[int, ...], settings: Mapping[str, Any], folder: str | Path | None) -> Job:
    own = {**settings, "k": k, "seed": seed, "started_from": list(started_from)}
    files = None if folder is None else ModelFiles(Path(folder), k, seed, own)
    if files is not None:
        files.check()
    return Job(k, seed, started_from, files)


def _trained(
    job: Job,
    task: Task,
    smaller: RepresentedPPO | None,
    transitions: int,
    arguments: Mapping[str, Any],
    callbacks: list[BaseCallback],
    bar: _Bar,
) -> RepresentedPPO:
    """The model of a job: that of its file, or a new one."""
    if job.files is not None and job.is_finished:
        # Functions are not read from files, and known: settings are the same
        functions = {name: value for name, value in arguments.items() if name in SCHEDULES and callable(value)}
        own = {"assignment": arguments["assignment"]} if isinstance(arguments.get("assignment"), type) else {}
        return RepresentedPPO.load(job.files.model, device=arguments.get("device", "auto"), custom_objects=functions, **own)
    if job.files is not None:
        job.files.begin()
    bar.say(f"k={job.k} seed={job.seed}")
    env = task.make_to_train(job.k)
    try:
        if smaller is None:
            model = RepresentedPPO(env=env, k=job.k, seed=job.seed, **arguments)
        else:
            model = warm_start(smaller, job.k, env, job.seed)
        model.learn(transitions * job.k, callback=[*callbacks, _MoveBar(bar)])
    finally:
        env.close()
    bar.finish(transitions * job.k)
    if job.files is not None:
        job.files.save(model)
    return model


class _Bar:
    """
    A progress bar over all transitions.

    :param progress: that shows it
    :param task: its line
    """

    def __init__(self, progress: Progress, task: TaskID):
        self.progress, self.task, self.finished = progress, task, 0

    def say(self, text: str) -> None:
        """Tell what is being done."""
        self.progress.update(self.task, description=text)

    def move(self, transitions: int) -> None:
        """So many transitions of the present model are there."""
        self.progress.update(self.task, completed=self.finished + transitions)

    def finish(self, transitions: int) -> None:
        """The present model is trained, and had so many to make."""
        self.finished += transitions
        self.move(0)


class _MoveBar(BaseCallback):
    """
    Moves the bar as a model is trained.

    :param bar: the bar
    """

    def __init__(self, bar: _Bar):
        super().__init__()
        self.bar = bar

    def _on_step(self) -> bool:
        if self.n_calls % STEPS_PER_MOVE == 0:
            self.bar.move(self.num_timesteps)
        return True


@contextlib.contextmanager
def _progress(jobs: Sequence[Job], transitions: int, wanted: bool) -> Iterator[_Bar]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    hidden = not (wanted and console.is_terminal)
    with Progress(*columns, console=console, transient=True, refresh_per_second=2, disable=hidden) as progress:
        yield _Bar(progress, progress.add_task("", total=transitions * sum(job.k for job in jobs)))
