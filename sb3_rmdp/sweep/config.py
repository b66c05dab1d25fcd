"""What a sweep is to train: its file, read, checked and multiplied out into runs."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.arguments import check_name
from sb3_rmdp.common.assignment import ASSIGNMENTS, DEFAULT_ASSIGNMENT, assignment_class
from sb3_rmdp.common.seeds import check_training_seed
from sb3_rmdp.common.user_files import read_text
from sb3_rmdp.envs.registered import check_registered
from sb3_rmdp.sweep.values import count, counts, mapping, read_yaml
from sb3_rmdp.vec_env.factory import MOST_ENVS
from sb3_rmdp.zoo.hyperparams import MAX_EPISODE_STEPS, NOT_KEYS, default_config, training_kwargs

#: Keys of a file, and what they are where they are left out; ``...`` must be there
DEFAULTS: dict[str, Any] = {
    "name": None,
    "environments": ...,
    "k": None,
    "n": None,
    "grid": None,
    "algorithms": [DEFAULT_ASSIGNMENT],
    "once": [],
    "seeds": 1,
    "transitions_per_policy": ...,
    "checkpoints": None,
    "n_eval_episodes": 20,
    "hyperparams": {},
    "results": None,
    "save_models": False,
}

#: Arguments of the model that the grid does not set
MODEL_KEYS = tuple(name for name in inspect.signature(RepresentedPPO).parameters if name not in (*NOT_KEYS, "k"))

#: Beside them: environments in which every policy acts, one by default
ENVS_PER_POLICY = "envs_per_policy"

#: And rollouts over which welfare is averaged to tell which model is best; the last one counts if it is 0, the default
KEEP_BEST = "keep_best"

#: And transitions per policy for which schedules and assignments plan, if the training is but the beginning of a longer one
PLANNED = "planned_transitions"

#: What a sweep knows beside arguments of the model, with the least that may be written and what it is where it is left out
SETTINGS = {ENVS_PER_POLICY: (1, 1), KEEP_BEST: (0, 0), MAX_EPISODE_STEPS: (0, 0), PLANNED: (0, 0)}

#: Runs of a sweep at most: more are a mistake, and so many take a large cluster years
MOST_RUNS = 100_000

#: What numpy takes
LARGEST_SEED = 2**32 - 1

#: Keys of tuned entries that a sweep sets itself
REPLACED = ("k", "n_timesteps")

#: What ``--only`` may ask for
FILTERS: dict[str, Callable[[Run], tuple[object, ...]]] = {
    "env": lambda run: (run.env_id, run.env_id.rpartition("/")[2], run.label),
    "k": lambda run: (run.k,),
    "n": lambda run: (run.n,),
    "algorithm": lambda run: (run.algorithm,),
    "seed": lambda run: (run.seed,),
}


@dataclass(frozen=True)
class Run:
    """
    One training with its evaluations; everything here but the label determines the result.

    :param env_id: environment
    :param env_kwargs: its arguments, ``n_agents`` included where the sweep sets it
    :param k: number of representatives
    :param algorithm: name within the sweep
    :param hyperparams: arguments of the model as they are written, the assignment included, and :data:`SETTINGS`
    :param seed: of the training
    :param checkpoints: transitions per policy at which welfare is measured, rising; the last one is the end
    :param n_eval_episodes: episodes per representative and evaluation
    :param label: of the environment, for people
    """

    env_id: str
    env_kwargs: dict[str, Any]
    k: int
    algorithm: str
    hyperparams: dict[str, Any]
    seed: int
    checkpoints: tuple[int, ...]
    n_eval_episodes: int
    label: str = field(default="", compare=False)

    @cached_property
    def id(self) -> str:
        """Equal for equal runs, whatever sweep they are in."""
        facts = {name: value for name, value in vars(self).items() if name not in ("label", "id")}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def n(self) -> int | None:
        """Number of agents, where the sweep sets it."""
        return self.env_kwargs.get("n_agents")

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the model, as they are written."""
        return {key: value for key, value in self.hyperparams.items() if key not in SETTINGS}

    @property
    def n_envs(self) -> int:
        """Environments of the training."""
        return self.k * self._setting(ENVS_PER_POLICY)

    @property
    def keep_best(self) -> int:
        """Rollouts over which welfare is averaged to tell which model is best; 0 if the last one counts."""
        return self._setting(KEEP_BEST)

    @property
    def training_kwargs(self) -> dict[str, Any]:
        """Arguments of the environment in the training: those of the evaluation, and a time limit if there is one."""
        return training_kwargs(self.env_kwargs, self._setting(MAX_EPISODE_STEPS))

    @property
    def planned_transitions(self) -> int:
        """Transitions per policy of the whole training, of which only the first ones are run if there are more of them."""
        return self._setting(PLANNED) or self.transitions

    def _setting(self, name: str) -> int:
        return _setting(name, name, self.hyperparams)

    @property
    def transitions(self) -> int:
        """Transitions per policy."""
        return self.checkpoints[-1]

    def __str__(self) -> str:
        agents = "" if self.n is None else f" n={self.n}"
        return f"{self.label or self.env_id} k={self.k}{agents} {self.algorithm} seed={self.seed}"


@dataclass(frozen=True)
class Sweep:
    """
    A file of a sweep, multiplied out.

    :param name: of the sweep
    :param runs: all of them, those of the first seed first, so that a part of a sweep is worth something
    :param results: where results go
    :param save_models: keep final models
    """

    name: str
    runs: tuple[Run, ...]
    results: Path
    save_models: bool

    def only(self, wanted: Mapping[str, Iterable[str]]) -> tuple[Run, ...]:
        """
        :param wanted: texts by name, see :data:`FILTERS`: a value each, commas included, or several with commas between them;
            any of the values will do, but of all names
        :return: the runs that have them
        :raises ValueError: if a value is nowhere in the sweep
        """
        runs = self.runs
        for name, texts in wanted.items():
            known = {str(value) for run in self.runs for value in FILTERS[name](run)}
            chosen = {value for text in texts for value in ([text] if text in known else re.split(r"\s*,\s*", text))}
            for value in sorted(chosen - known):
                raise ValueError(f"no run has {name}={value}: choose among {', '.join(sorted(known))}")
            runs = tuple(run for run in runs if chosen & {str(value) for value in FILTERS[name](run)})
        if not runs:
            raise ValueError(f"no run has all of {', '.join(f'{name}={text}' for name in wanted for text in wanted[name])}")
        return runs


def read_sweep(path: Path) -> Sweep:
    """
    :param path: YAML file, see the page "Sweeps" of the documentation
    :return: the sweep
    :raises ValueError: if something is wrong with it, in one line that names it
    :raises OSError: if it cannot be read
    """
    try:
        config = read_yaml(read_text(path))
        return _sweep(path, config)
    except (ValueError, ImportError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error


def _sweep(path: Path, config: Any) -> Sweep:
    if not isinstance(config, dict):
        raise ValueError("a sweep is a mapping with keys such as environments, k, algorithms and seeds")
    for key in config:
        check_name(key, DEFAULTS, "no key of a sweep")
    values = {**DEFAULTS, **config}
    for key, value in values.items():
        if value is ...:
            raise ValueError(f"{key} is missing")
    name = str(values["name"] or path.stem)
    if "/" in name or not name.isprintable():
        raise ValueError(f"name: {name!r} is to name a folder as well: leave slashes out")
    points = _points(values)
    once = counts("once", values["once"], empty=True)
    for k in once:
        if k not in {k for k, _ in points}:
            raise ValueError(f"once: {k} is none of the numbers k of this sweep")
    algorithms = _algorithms(values["algorithms"])
    common = mapping("hyperparams", values["hyperparams"])
    _check_model_keys("hyperparams", common, without=("assignment", "assignment_kwargs"))
    seeds = values["seeds"]
    checkpoints = _checkpoints(values["checkpoints"], count("transitions_per_policy", values["transitions_per_policy"]))
    episodes = count("n_eval_episodes", values["n_eval_episodes"])
    numbers = (
        counts("seeds", seeds, 0, LARGEST_SEED) if isinstance(seeds, list) else range(count("seeds", seeds, 1, LARGEST_SEED))
    )
    environments = _environments(values["environments"])
    n_runs = len(numbers) * len(environments) * len(points) * len(algorithms)
    if n_runs > MOST_RUNS:
        raise ValueError(
            f"seeds: {len(numbers)} of them would make {n_runs} runs, and a sweep has at most {MOST_RUNS}: give fewer seeds"
        )
    runs = []
    for seed in numbers:
        for env_id, kwargs, label, tuned in environments:
            for (k, n), (index, (algorithm, own)) in itertools.product(points, enumerate(algorithms.items())):
                if index and k in once:
                    continue
                agents = {} if n is None else {"n_agents": n}
                if n is not None and "n_agents" in kwargs:
                    raise ValueError(f"{label}: n_agents is among the kwargs, and n is given as well; leave one out")
                hyperparams = _without_idle_settings({**tuned, **common, **own}, checkpoints[-1])
                runs.append(Run(env_id, {**kwargs, **agents}, k, algorithm, hyperparams, seed, checkpoints, episodes, label))
    if not isinstance(values["save_models"], bool):
        raise ValueError(f"save_models: {values['save_models']!r} is neither true nor false")
    results = (
        path.with_suffix(".csv") if values["results"] is None else Path(os.path.normpath(path.parent / str(values["results"])))
    )
    seen: set[str] = set()
    for run in runs:
        check_training_seed(run.seed, run.n_envs)
        if run.id in seen:
            raise ValueError(f"the run {run} is there twice: remove what is listed twice")
        seen.add(run.id)
    return Sweep(name, tuple(runs), results, values["save_models"])


def _without_idle_settings(hyperparams: dict[str, Any], transitions: int) -> dict[str, Any]:
    """Settings are numbers, and left out where they change nothing: however that is written, it is the same run."""
    planned = _setting(PLANNED, PLANNED, hyperparams)
    if 0 < planned < transitions:
        raise ValueError(f"{PLANNED}: {planned} is less than transitions_per_policy, {transitions}: plan for as many at least")
    idle = {name: (default,) for name, (_, default) in SETTINGS.items()} | {PLANNED: (0, transitions)}
    settings = {name: _setting(name, name, hyperparams) for name in SETTINGS if name in hyperparams}
    arguments = {name: value for name, value in hyperparams.items() if name not in SETTINGS}
    return {**arguments, **{name: value for name, value in settings.items() if value not in idle[name]}}


def _environments(entries: Any) -> list[tuple[str, dict[str, Any], str, dict[str, Any]]]:
    """Id, arguments, label and tuned hyperparameters of each environment."""
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"environments: {entries!r} is no list of environments, such as [rmdp/ResourceGathering-v0]")
    environments = []
    for entry in entries:
        entry = {"id": entry} if isinstance(entry, str) else mapping("environments", entry)
        for key in entry:
            check_name(key, ("id", "kwargs", "label"), "no key of an environment")
        env_id = entry.get("id")
        if not isinstance(env_id, str):
            raise ValueError(f"environments: {entry!r} has no id")
        check_registered(env_id)
        tuned = tuned_entry(env_id)
        own = mapping(f"kwargs of {env_id}", entry.get("kwargs") or {})
        kwargs = {**mapping("env_kwargs", tuned.pop("env_kwargs", None) or {}), **own}
        environments.append((env_id, kwargs, str(entry.get("label") or env_id), tuned))
    return environments


def tuned_entry(env_id: str) -> dict[str, Any]:
    """
    :param env_id: environment, with or without its module
    :return: its tuned hyperparameters as they are written, or the default ones, without what the sweep sets itself
    :raises ValueError: if they hold something that is for RL Zoo alone
    """
    file = default_config("rppo")
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    entry = entries.get(env_id.rpartition(":")[2], entries["default"])
    tuned = {key: value for key, value in entry.items() if key not in REPLACED}
    for key in tuned:
        if key not in (*MODEL_KEYS, "env_kwargs", MAX_EPISODE_STEPS):
            raise ValueError(f"{file} has {key!r} for {env_id}, which a sweep cannot follow: train with sb3-rmdp train")
    return tuned


def _points(values: dict[str, Any]) -> list[tuple[int, int | None]]:
    """Numbers of representatives and of agents."""
    grid = values["grid"]
    if grid is None:
        if values["k"] is None:
            raise ValueError("k is missing: give a list, such as k: [1, 3, 5], or pairs of k and n as grid")
        agents = [None] if values["n"] is None else counts("n", values["n"])
        return list(itertools.product(counts("k", values["k"]), agents))
    if values["k"] is not None or values["n"] is not None:
        raise ValueError("grid says which k and n there are: leave k and n out, or grid")
    if not isinstance(grid, list) or not grid:
        raise ValueError(f"grid: {grid!r} is no list of pairs, such as [{{k: 50, n: 1000}}]")
    points: list[tuple[int, int | None]] = []
    for pair in grid:
        pair = mapping("grid", pair)
        for key in pair:
            check_name(key, ("k", "n"), "no key of a pair in grid")
        if "k" not in pair:
            raise ValueError(f"grid: {pair!r} has no k")
        n = pair.get("n")
        points.append((count("k", pair["k"]), None if n is None else count("n", n)))
    return points


def _algorithms(entries: Any) -> dict[str, dict[str, Any]]:
    """Arguments of the model by name of the algorithm."""
    if isinstance(entries, list) and entries and all(isinstance(entry, str) for entry in entries):
        if len(set(entries)) < len(entries):
            raise ValueError(f"algorithms: {entries} has a name twice")
        entries = dict.fromkeys(entries)
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"algorithms: {entries!r} is neither a list of assignments nor a mapping of names to arguments")
    algorithms = {}
    for name, own in entries.items():
        if not isinstance(name, str) or not name.isprintable():
            raise ValueError(f"algorithms: {name!r} is no name")
        arguments = {"assignment": name, **mapping(f"algorithm {name}", own or {})}
        if ":" in str(arguments["assignment"]):
            assignment_class(arguments["assignment"])
        else:
            check_name(arguments["assignment"], ASSIGNMENTS, "no assignment")
        _check_model_keys(f"algorithm {name}", arguments)
        algorithms[name] = arguments
    return algorithms


def _check_model_keys(where: str, arguments: dict[str, Any], without: tuple[str, ...] = ()) -> None:
    known = [name for name in (*MODEL_KEYS, *SETTINGS) if name not in without]
    for key in arguments:
        check_name(key, known, f"no argument of the model here ({where})")
    for name in SETTINGS:
        _setting(f"{where}: {name}", name, arguments)


def _setting(where: str, name: str, arguments: Mapping[str, Any]) -> int:
    least, default = SETTINGS[name]
    return count(where, arguments.get(name, default), minimum=least, maximum=MOST_ENVS if name == ENVS_PER_POLICY else None)


def _checkpoints(values: Any, transitions: int) -> tuple[int, ...]:
    checkpoints = [transitions] if values is None else counts("checkpoints", values)
    if checkpoints != sorted(checkpoints) or checkpoints[-1] != transitions:
        raise ValueError(f"checkpoints: {checkpoints} must rise and end with transitions_per_policy, {transitions}")
    return tuple(checkpoints)
