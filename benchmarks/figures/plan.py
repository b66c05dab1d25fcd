"""What a sweep is to measure, by its file, and what of it is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks.figures.data import BadResults, Row, read_rows
from sb3_rmdp.sweep.config import Run, read_sweep


@dataclass(frozen=True)
class Task:
    """
    An environment with a number of policies and of agents, for which algorithms are compared.

    :param label: name of the environment in figures and tables
    :param env: gymnasium id
    :param k: number of representatives
    :param n_agents: number of agents; ``None`` if that is for the environment to say
    """

    label: str
    env: str
    k: int
    n_agents: int | None


def task_of(run: Run) -> Task:
    """
    :param run: of a sweep
    :return: its task; without a label in the file, the environment goes by its id, shortened
    """
    short = run.env_id.rpartition("/")[2].partition("-v")[0].removesuffix("Velocity")
    return Task(short if run.label in ("", run.env_id) else run.label, run.env_id, run.k, run.n)


@dataclass(frozen=True)
class Plan:
    """
    A sweep as its file has it.

    :param name: of the sweep
    :param file: where it is described
    :param runs: all of them
    """

    name: str
    file: Path
    runs: tuple[Run, ...]

    @property
    def command(self) -> str:
        """What runs it, or what is left of it."""
        return f"sb3-rmdp sweep benchmarks/sweeps/{self.file.name}"

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Transitions per policy after which welfare is measured, rising."""
        return self.runs[0].checkpoints

    @cached_property
    def keys(self) -> dict[str, tuple[Task, str, int]]:
        """Task, algorithm and seed by the id of the run."""
        return {run.id: (task_of(run), run.algorithm, run.seed) for run in self.runs}

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """In the order of the file."""
        return tuple(dict.fromkeys(task for task, _, _ in self.keys.values()))

    @cached_property
    def algorithms(self) -> tuple[str, ...]:
        """Names; the first is compared with each of the others."""
        return tuple(dict.fromkeys(algorithm for _, algorithm, _ in self.keys.values()))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Of every algorithm in every task."""
        return tuple(dict.fromkeys(seed for _, _, seed in self.keys.values()))

    def algorithms_of(self, task: Task) -> tuple[str, ...]:
        """
        :param task: one of the sweep
        :return: the algorithms that run in it; a single one stands for all
        """
        return tuple(dict.fromkeys(algorithm for other, algorithm, _ in self.keys.values() if other == task))


def read_plan(file: Path) -> tuple[Plan, Path]:
    """
    :param file: YAML of a sweep
    :return: the sweep, and where its results go
    :raises BadResults: if something is wrong with it
    """
    try:
        sweep = read_sweep(file)
    except ValueError as error:
        raise BadResults(str(error)) from error
    return Plan(sweep.name, file, sweep.runs), sweep.results


@dataclass
class Sweep:
    """
    A plan with the rows that belong to it.

    :param plan: what is to be there
    :param rows: by task, algorithm and seed, the rows by checkpoint
    """

    plan: Plan
    rows: dict[tuple[Task, str, int], dict[int, Row]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, rows: Iterable[Row]) -> None:
        """
        :param rows: of a file of results, those of other sweeps included
        """
        for row in rows:
            key = self.plan.keys.get(row.run)
            if key is not None and row.transitions in self.plan.checkpoints:
                self.rows[key][row.transitions] = row

    def reached(self) -> int | None:
        """The last checkpoint that any run has; ``None`` without results."""
        return max((checkpoint for by_checkpoint in self.rows.values() for checkpoint in by_checkpoint), default=None)

    def at(self, task: Task, algorithm: str, checkpoint: int) -> dict[int, Row]:
        """
        :param task: one of the plan
        :param algorithm: its name
        :param checkpoint: transitions per policy
        :return: rows by seed, as far as they are there
        """
        runs = ((seed, self.rows.get((task, algorithm, seed), {})) for seed in self.plan.seeds)
        return {seed: by_checkpoint[checkpoint] for seed, by_checkpoint in runs if checkpoint in by_checkpoint}

    def welfare(self, task: Task, algorithm: str, checkpoint: int, kind: str) -> dict[int, float]:
        """
        :param task: one of the plan
        :param algorithm: its name
        :param checkpoint: transitions per policy
        :param kind: "stochastic" or "deterministic"
        :return: social welfare by seed, as far as it is there
        """
        return {seed: row.welfare[kind] for seed, row in self.at(task, algorithm, checkpoint).items()}

    def bound(self, task: Task) -> float | None:
        """
        :param task: one of the plan
        :return: optimum or upper bound of its welfare, if it is known
        """
        return next((row.bound for row in self._of(task) if row.bound is not None), None)

    def n_agents(self, task: Task) -> int | None:
        """
        :param task: one of the plan
        :return: number of its agents, which is known from results if not from the plan
        """
        return task.n_agents or next((row.n_agents for row in self._of(task)), None)

    def _of(self, task: Task) -> Iterable[Row]:
        return (row for key, found in self.rows.items() if key[0] == task for row in found.values())

    def seeds_done(self, tasks: Iterable[Task], checkpoint: int) -> str | None:
        """
        :param tasks: of the plan
        :param checkpoint: transitions per policy
        :return: "3 of 10 seeds", or "1 to 3 of 10 seeds"; ``None`` if all of them are there
        """
        runs = [(task, algorithm) for task in tasks for algorithm in self.plan.algorithms_of(task)]
        counts = [len(self.at(task, algorithm, checkpoint)) for task, algorithm in runs]
        low, high, planned = min(counts), max(counts), len(self.plan.seeds)
        if low == planned:
            return None
        return f"{low} of {planned} seeds" if low == high else f"{low} to {high} of {planned} seeds"


def read_sweeps(sweeps: Path, results: Path) -> tuple[dict[str, Sweep], dict[str, int]]:
    """
    :param sweeps: folder of YAML files
    :param results: folder of the CSV files that they name; several sweeps may share one
    :return: all sweeps by name, those without results included; and by file of results, the number of runs in it that no
        sweep plans, be it that a sweep or hyperparameters have changed since
    :raises BadResults: if a file cannot be read, or two sweeps have one name
    """
    found: dict[str, Sweep] = {}
    by_file: dict[str, list[Sweep]] = defaultdict(list)
    for file in sorted(sweeps.glob("*.yml")):
        plan, target = read_plan(file)
        if plan.name in found:
            raise BadResults(f"{file} and {found[plan.name].plan.file} are both called {plan.name!r}: rename one")
        found[plan.name] = Sweep(plan)
        by_file[target.name].append(found[plan.name])
    strays = {}
    for name, sharing in by_file.items():
        rows = read_rows(results / name)
        for sweep in sharing:
            sweep.add(rows)
        unknown = {row.run for row in rows}.difference(*(sweep.plan.keys for sweep in sharing))
        if unknown:
            strays[name] = len(unknown)
    return found, strays


def by_label(tasks: Iterable[Task]) -> Mapping[str, list[Task]]:
    """
    :param tasks: any
    :return: tasks by the label of their environment
    """
    groups: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        groups[task.label].append(task)
    return groups
