"""The command ``sb3-rmdp sweep``. What costs time to import is imported when it runs: --help should not wait."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from sb3_rmdp.commands import MOST, bad_input, check_outputs, naming, one_line

if TYPE_CHECKING:
    from sb3_rmdp.sweep.config import Run, Sweep
    from sb3_rmdp.sweep.results import Results
    from sb3_rmdp.sweep.scheduling import Finished

#: Status of a process that Ctrl-C has ended
INTERRUPTED = 130


def parse_only(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, list[str]]:
    """
    :param values: ``name=value`` or ``name=value,value`` each
    :return: what is to the right of the signs, by name
    :raises click.BadParameter: if one is something else
    """
    names = ("env", "k", "n", "algorithm", "seed")
    wanted: dict[str, list[str]] = {}
    for text in values:
        name, equals, listed = text.partition("=")
        if not equals or name not in names:
            raise click.BadParameter(
                f"{text!r} selects nothing: give {', '.join(names[:-1])} or {names[-1]}, e.g. k=3 or seed=0,1"
            )
        wanted.setdefault(name, []).append(listed.strip())
    return wanted


@click.command(short_help="Train and evaluate a grid of environments, budgets, algorithms and seeds.")
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--address", metavar="ADDRESS", help="Ray cluster: host:port, ray://host:port or auto.  [default: this machine]")
@click.option("--workers", type=click.IntRange(1, MOST), help="Runs at a time.  [default: one per core; all with --address]")
@click.option(
    "--out",
    metavar="RESULTS.csv",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where results are appended.  [default: what CONFIG says, or CONFIG with .csv in the place of .yml]",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME=VALUES",
    callback=parse_only,
    help="Only runs with this env, k, n, algorithm or seed; may be repeated.",
)
@click.option("--retries", type=click.IntRange(0, MOST), default=2, show_default=True, help="New attempts at a run that died.")
@click.option("--dry-run", is_flag=True, help="List the runs, those that are done, and what the others will cost.")
@click.option("--traceback", is_flag=True, help="Show where a run failed, beside why.")
def sweep(
    config: Path,
    address: str | None,
    workers: int | None,
    out: Path | None,
    only: dict[str, list[str]],
    retries: int,
    dry_run: bool,
    traceback: bool,
) -> None:
    """
    Train every run of the grid in CONFIG, a YAML file, and append its social welfare to a CSV file.

    Runs that are in the CSV file already are left out: a sweep that was stopped, or died, goes on if it is started again, also
    elsewhere or with other options. Press Ctrl-C to stop it. A run that died is tried again; one that fails in all attempts is
    reported, the others go on, and the exit status is 1.

    \b
      sb3-rmdp sweep grid.yml --dry-run
      sb3-rmdp sweep grid.yml
      sb3-rmdp sweep grid.yml --only k=3,5 --only seed=0 --workers 4
      sb3-rmdp sweep grid.yml --address ray-head:6379

    \b
    CONFIG, for example; environments, k and transitions_per_policy must be there:
      environments: [rmdp/HalfCheetahVelocity-v0]
      k: [1, 5, 10]                               # or grid: [{k: 5, n: 100}, {k: 50, n: 1000}]
      algorithms: [em, end_to_end, random]
      seeds: 10                                   # 0 to 9, or a list
      transitions_per_policy: 1_000_000
      checkpoints: [250_000, 1_000_000]           # where welfare is measured; the last is the end
      hyperparams: {n_steps: 1024}                # in the place of the tuned ones

    All keys, and the columns of the CSV file: page "Sweeps" of the documentation.
    """

    console = Console(highlight=False, soft_wrap=True, markup=False)
    # Modules of the user's own are found where the command is called, as they are by "python -m"; Ray tells its workers
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with interruptible(console):
        with bad_input():
            plan, runs = read_plan(config, only, needs_ray=not dry_run)
            path = out or plan.results
            check_outputs({"--out" if out else "results": path}, [config])
        if dry_run:
            from sb3_rmdp.sweep.results import read_results

            with bad_input():
                rows = read_results(path)
                check_pending(runs, {row["run"] for row in rows})
            describe(console, runs, rows, path, workers or cores())
            return

        from sb3_rmdp.common.whole_files import check_target
        from sb3_rmdp.sweep.results import Results

        with bad_input():
            results = Results(path)
        with results:
            with bad_input():
                pending = check_pending(runs, results.done)
                if plan.save_models:
                    check_target(model_path(plan, runs[0], results))
            note_versions(console, results.rows)
            note_models(console, plan, runs, results)
            failed = train(console, plan, pending, results, address, workers, retries, traceback) if pending else []
            done = sum(run.id in results.done for run in runs)
        console.print(f"{done} of {len(runs)} runs are in {path}")
        if failed:
            console.print(f"{len(failed)} failed in every attempt; the same command tries them again:")
            for run in failed:
                console.print(f"  {run}")
            raise SystemExit(1)


@contextlib.contextmanager
def interruptible(console: Console) -> Iterator[None]:
    """
    Ctrl-C ends with the exit status that it has everywhere else.

    :param console: to say that it did
    :raises SystemExit: after Ctrl-C
    """
    try:
        yield
    except KeyboardInterrupt:
        console.print("Stopped, while nothing was trained.")
        raise SystemExit(INTERRUPTED) from None


def read_plan(config: Path, only: Mapping[str, Sequence[str]], needs_ray: bool) -> tuple[Sweep, Sequence[Run]]:
    """
    :param config: file of the sweep
    :param only: which runs are asked for
    :param needs_ray: whether Ray must be there
    :return: the sweep, and the runs that are asked for
    :raises ValueError: if something is wrong with the file, or not installed
    """
    try:
        from sb3_rmdp.sweep.config import read_sweep
    except ModuleNotFoundError as error:
        raise ValueError(f'{error.name} is not installed: pip install "sb3_rmdp[sweep]"') from error
    from sb3_rmdp.sweep.scheduling import load_ray

    if needs_ray:
        load_ray()
    with naming(config, "a sweep"):
        plan = read_sweep(config)
    return plan, plan.only(only)


def check_pending(runs: Sequence[Run], done: set[str]) -> list[Run]:
    """
    :param runs: asked for
    :param done: ids of those that have results
    :return: the others, which can be made
    :raises ValueError: if one of these cannot
    """
    from sb3_rmdp.sweep.running import check_runs

    pending = [run for run in runs if run.id not in done]
    check_runs(pending)
    return pending


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train(
    console: Console,
    plan: Sweep,
    pending: Sequence[Run],
    results: Results,
    address: str | None,
    workers: int | None,
    retries: int,
    traceback: bool,
) -> list[Run]:
    """
    :param console: for a bar, where it is a terminal, and lines
    :param plan: the sweep
    :param pending: runs of it
    :param results: where their results go
    :param address: of a Ray cluster
    :param workers: runs at a time
    :param retries: new attempts at each
    :param traceback: show where runs fail
    :return: those that failed
    :raises SystemExit: after Ctrl-C or SIGTERM
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from sb3_rmdp.sweep.progress import Lines
    from sb3_rmdp.sweep.scheduling import Finished, disconnect, execute, terminated_as_by_ctrl_c

    at_a_time = workers or (None if address else min(cores(), len(pending)))
    failed: list[Run] = []
    ended = 0
    try:
        with bad_input():
            start(address, at_a_time or 1)
        console.print(f"{len(pending)} runs to do, {at_a_time or 'as many as the cluster takes'} at a time")
        columns = ("runs", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "left:", TimeRemainingColumn())
        hidden = not console.is_terminal
        # Two pictures a second: cores are for the runs. These stand still while they are evaluated
        bars = Progress(
            *columns, console=console, transient=True, disable=hidden, refresh_per_second=2, speed_estimate_period=600
        )
        with terminated_as_by_ctrl_c(), bars as progress:
            bar, lines = progress.add_task("runs", total=len(pending)), Lines(console.print, len(pending))

            def follow(underway: float) -> None:
                progress.update(bar, completed=ended + underway)
                if hidden:
                    lines.note(ended + underway)

            for event in execute(pending, at_a_time, retries, plan.save_models, follow):
                if isinstance(event, Finished):
                    keep(event, plan, results)
                    text = summary(event.outcome.rows[-1])
                else:
                    text = f"{event.reason}; {'trying again' if event.again else 'giving up'}"
                    if not event.again:
                        failed.append(event.run)
                        if traceback:
                            console.print(event.traceback)
                ended += isinstance(event, Finished) or not event.again
                console.print(f"{ended:>4}/{len(pending)} {event.run}: {text}")
                lines.reset()
            progress.update(bar, completed=ended)
    except KeyboardInterrupt:
        console.print(f"Stopped. What was finished is in {results.path}; the same command goes on with the rest.")
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        raise click.ClickException(
            f"{error}. What was written before stays; the same command goes on with the rest."
        ) from error
    finally:
        disconnect()
    return failed


def start(address: str | None, at_a_time: int) -> None:
    """
    :param address: of a Ray cluster
    :param at_a_time: runs at a time
    :raises ValueError: if Ray cannot be started or reached
    """
    from sb3_rmdp.sweep.scheduling import connect

    try:
        connect(address, at_a_time)
    except ValueError:
        raise
    except Exception as error:  # Ray raises bare exceptions as well
        where = f"at --address {address}" if address else "on this machine"
        raise ValueError(f"Ray cannot be started {where}: {one_line(error)}") from error


def keep(event: Finished, plan: Sweep, results: Results) -> None:
    """
    Write down what came of a run, its row last: whoever has a row has the model as well.

    :param event: tells of it
    :param plan: the sweep
    :param results: where results go
    """
    from sb3_rmdp.common.whole_files import save_whole

    model = event.outcome.model
    if model is not None:
        save_whole(model_path(plan, event.run, results), partial(_write, model))
    results.append([{**row, "sweep": plan.name} for row in event.outcome.rows])


def model_path(plan: Sweep, run: Run, results: Results) -> Path:
    """
    :param plan: the sweep
    :param run: of it
    :param results: where results go
    :return: where its model is kept
    """
    return results.path.parent / f"{plan.name}-models" / f"{run.id}.zip"


def _write(content: bytes, file: io.BufferedIOBase) -> None:
    file.write(content)


def summary(row: Mapping[str, object]) -> str:
    """
    :param row: of the end of a run
    :return: how it went, in a few words
    """
    bound = "" if row["bound"] is None else f" of at most {row['bound']:.2f}"
    kinds = f"{row['stochastic']:.2f} sampled, {row['deterministic']:.2f} likeliest actions"
    return f"welfare {kinds}{bound}, {row['seconds']:.0f} s"


def note_versions(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """
    Say so if results of other versions are about to be mixed with those of this one.

    :param console: to say it
    :param rows: that there are
    """
    from sb3_rmdp.sweep.running import versions

    now = versions()
    others: Counter[str] = Counter()
    for last in {row["run"]: row for row in rows}.values():
        then = json.loads(last["versions"])
        differences = [f"{name} {then.get(name)}, now {now.get(name)}" for name in now if then.get(name) != now.get(name)]
        if differences:
            others["; ".join(differences)] += 1
    for text, number in others.items():
        console.print(f"Note: {number} finished runs are of other versions: {text}")


def note_models(console: Console, plan: Sweep, runs: Sequence[Run], results: Results) -> None:
    """
    Say so if models are to be kept, and were not when runs were trained that are not trained again.

    :param console: to say it
    :param plan: the sweep
    :param runs: that are asked for
    :param results: that there are
    """
    if plan.save_models:
        lacking = [run for run in runs if run.id in results.done and not model_path(plan, run, results).exists()]
        if lacking:
            folder = model_path(plan, lacking[0], results).parent
            text = f"Note: {len(lacking)} finished runs have no model in {folder}"
            console.print(f"{text}: to have them, name another file by --out")


def describe(console: Console, runs: Sequence[Run], rows: Sequence[Mapping[str, str]], path: Path, workers: int) -> None:
    """
    :param console: to list the runs
    :param runs: that are asked for
    :param rows: that there are
    :param path: where results go
    :param workers: runs at a time
    """
    from sb3_rmdp.sweep.estimate import duration, estimated_seconds

    done = {row["run"] for row in rows}
    pending = [run for run in runs if run.id not in done]
    for run in runs:
        console.print(f"{'done' if run.id in done else 'to do':<6} {run.id} {run}, {run.transitions} transitions per policy")
    console.print(f"{len(runs)} runs, {len(runs) - len(pending)} of them done, in {path}")
    seconds = [known for known in estimated_seconds(pending, rows) if known is not None]
    if seconds:
        unknown = len(pending) - len(seconds)
        rest = f"; {unknown} runs are like none that is finished" if unknown else ""
        wall = max(sum(seconds) / workers, max(seconds))
        console.print(
            f"By the finished ones, trainings to do take {duration(sum(seconds))} of one core, {duration(wall)} with "
            f"{workers} workers, evaluations aside{rest}"
        )
    elif pending:
        console.print("What they cost is known when runs in these environments are finished")
