"""Tables in markdown: what was reached, how algorithms compare, what it took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from benchmarks.figures.cost import Cost
from benchmarks.figures.groups import largest_group, worth_of_groups
from benchmarks.figures.plan import Sweep, Task
from benchmarks.figures.statistics import Paired, holm, mean_and_error, paired

KINDS = ("stochastic", "deterministic")

#: What the paper's text says of welfare, by sweep and k
PAPER = {"figure2": {3: "EM, end-to-end: above 85", 10: "EM, end-to-end: above 90", 25: "at most 93.6"}}

NONE = "-"

#: Of several environments
TOGETHER = "together"


def rows(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """
    :param head: names of columns
    :param lines: cells
    :return: a markdown table
    """
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def number(mean: float, error: float | None) -> str:
    """
    :param mean: over seeds
    :param error: its standard error
    :return: both, as far as they are known
    """
    return f"{mean:.2f}" if error is None else f"{mean:.2f} ± {error:.2f}"


def _share(mean: float, bound: float | None) -> str:
    return NONE if not bound else f"{mean / bound:.1%}"


def _size(sweep: Sweep, task: Task) -> list[str]:
    n_agents = sweep.n_agents(task)
    return [task.label, str(task.k), NONE if n_agents is None else str(n_agents)]


def overview(sweep: Sweep, kind: str) -> str:
    """
    :param sweep: with results
    :param kind: of policy
    :return: a table per sweep, a row per environment and k, a column per algorithm, at the last checkpoint that was reached
    """
    checkpoint, paper = sweep.reached(), PAPER.get(sweep.plan.name, {})
    assert checkpoint is not None
    lines = []
    for task in sweep.plan.tasks:
        bound = sweep.bound(task)
        line = [*_size(sweep, task), NONE if bound is None else f"{bound:.2f}"]
        line += [paper.get(task.k, "")] if paper else []
        for algorithm in sweep.plan.algorithms:
            if algorithm not in sweep.plan.algorithms_of(task):
                line.append(f"as {sweep.plan.algorithms[0]}")
                continue
            values = list(sweep.welfare(task, algorithm, checkpoint, kind).values())
            line.append(f"{number(*mean_and_error(values))} ({len(values)})" if values else NONE)
        lines.append(line)
    head = ["environment", "k", "n", "at most", *(["paper"] if paper else []), *sweep.plan.algorithms]
    return rows(head, lines)


def details(sweep: Sweep) -> str:
    """
    :param sweep: with results
    :return: every environment, k, algorithm and checkpoint of which anything is known
    """
    lines = []
    for task in sweep.plan.tasks:
        for algorithm in sweep.plan.algorithms_of(task):
            for checkpoint in sweep.plan.checkpoints:
                seeds = len(sweep.at(task, algorithm, checkpoint))
                if not seeds:
                    continue
                line = [*_size(sweep, task), algorithm, f"{checkpoint:,}", f"{seeds} of {len(sweep.plan.seeds)}"]
                for kind in KINDS:
                    mean, error = mean_and_error(list(sweep.welfare(task, algorithm, checkpoint, kind).values()))
                    line += [number(mean, error), _share(mean, sweep.bound(task))]
                lines.append(line)
    head = ["environment", "k", "n", "algorithm", "transitions per policy", "seeds"]
    return rows([*head, "stochastic", "share", "deterministic", "share"], lines)


def runs(sweep: Sweep) -> str:
    """
    :param sweep: with results
    :return: a row per environment, k and algorithm, with the runs one by one, at the last checkpoint that was reached
    """
    checkpoint = sweep.reached()
    assert checkpoint is not None
    lines = []
    for task in sweep.plan.tasks:
        for algorithm in sweep.plan.algorithms_of(task):
            found = sweep.at(task, algorithm, checkpoint)
            if not found:
                continue
            worth = [value for row in found.values() if (value := worth_of_groups(row)) is not None]
            told = [[row.welfare[kind] for row in found.values()] for kind in KINDS]
            told += [[row.greedy for row in found.values()], worth]
            line = [*_size(sweep, task), algorithm, ", ".join(map(str, found))]
            line += [", ".join(f"{value:.2f}" for value in values) or NONE for values in told]
            lines.append([*line, ", ".join(str(largest_group(row)) for row in found.values())])
    head = ["environment", "k", "n", "algorithm", "seeds"]
    return rows([*head, *KINDS, "if agents chose", "best speeds for groups", "largest group"], lines)


def comparisons(sweep: Sweep, tasks: Sequence[Task], checkpoint: int, kind: str) -> list[tuple[str, Paired, float | None]]:
    """
    :param sweep: with results
    :param tasks: of the plan, with the same algorithms; a seed of each of them makes a pair
    :param checkpoint: transitions per policy
    :param kind: of policy
    :return: each rival of the first algorithm, how they compare, and p adjusted for the number of rivals
    """

    def welfare(algorithm: str) -> dict[tuple[int, int], float]:
        found = (sweep.welfare(task, algorithm, checkpoint, kind) for task in tasks)
        return {(place, seed): value for place, by_seed in enumerate(found) for seed, value in by_seed.items()}

    first, *rivals = sweep.plan.algorithms_of(tasks[0])
    results = [paired(welfare(first), welfare(rival)) for rival in rivals]
    return list(zip(rivals, results, holm([result.p for result in results]), strict=True))


def tests(sweep: Sweep) -> str | None:
    """
    :param sweep: with results
    :return: the first algorithm against each other at the last checkpoint that was reached, in each task, and where several
        environments have the same k and n, in all of them together; ``None`` if no seed has both
    """
    checkpoint = sweep.reached()
    assert checkpoint is not None
    together: dict[tuple[int, int | None], list[Task]] = defaultdict(list)
    for task in sweep.plan.tasks:
        together[task.k, sweep.n_agents(task)].append(task)
    groups = [[task] for task in sweep.plan.tasks] + [tasks for tasks in together.values() if len(tasks) > 1]
    lines: list[list[str]] = []
    most: dict[tuple[str, ...], int] = {}
    for tasks in groups:
        by_kind = [comparisons(sweep, tasks, checkpoint, kind) for kind in KINDS]
        label, *size = _size(sweep, tasks[0])
        for told in zip(*by_kind, strict=True):
            rival, result, _ = told[0]
            of_one = most.get((rival, *size), 0)
            # One environment alone says as much by itself
            if not result.pairs or (len(tasks) > 1 and result.pairs == of_one):
                continue
            most[(rival, *size)] = max(of_one, result.pairs)
            line = [TOGETHER if len(tasks) > 1 else label, *size, rival, str(result.pairs)]
            for _, compared, adjusted in told:
                line += [f"{compared.difference:+.2f}", str(compared.ahead), _p(compared.p), _p(adjusted)]
            lines.append(line)
    if not lines:
        return None
    head = ["environment", "k", "n", f"{sweep.plan.algorithms[0]} less", "pairs"]
    return rows([*head, *(name for kind in KINDS for name in (kind, "ahead", "p", "p, Holm"))], lines)


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def costs(told: Sequence[tuple[Sweep, Cost]]) -> str:
    """
    :param told: sweeps and what they took
    :return: a row per sweep
    """
    lines = [
        [
            sweep.plan.name,
            f"{cost.done} of {cost.planned}",
            f"{cost.spent:.1f}",
            "not known yet" if cost.left is None else f"{cost.left:.1f}",
            f"`{sweep.plan.command}`",
        ]
        for sweep, cost in told
    ]
    return rows(["sweep", "runs", "core hours so far", "core hours left, estimated", "command"], lines)
