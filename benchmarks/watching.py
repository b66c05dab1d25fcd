"""Watch a training: train one run of a sweep anew, as the sweep does, write down what was seen, and draw it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch as th
from matplotlib.figure import Figure

from benchmarks.figures.pictures import save
from benchmarks.welfare import PACKAGES, RESULTS
from sb3_rmdp.sweep.config import Run, read_sweep

#: What a run is chosen by
CHOICES = ("env", "k", "algorithm", "seed")


def one_run(sweep: Path, wanted: dict[str, str | None]) -> Run:
    """
    :param sweep: file of a sweep
    :param wanted: values by name; ``None`` for any
    :return: the run that has them
    :raises ValueError: if there is none, or more than one
    """
    plan = read_sweep(sweep)
    runs = plan.only({name: [value] for name, value in wanted.items() if value is not None})
    if len(runs) != 1:
        listed = "".join(f"\n  {run}" for run in runs[:20])
        raise ValueError(f"{len(runs)} runs of {sweep} are meant, and one can be watched: choose among{listed}")
    return runs[0]


def text_of(seen: dict[str, Any]) -> str:
    """
    :param seen: what is to be in a file, by name
    :return: JSON with a line for each name; lists of mappings have a line for each mapping
    """

    def text(value: Any) -> str:
        rows = isinstance(value, list) and value and isinstance(value[0], dict)
        return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]" if rows else json.dumps(value)

    return "{\n" + ",\n".join(f" {json.dumps(name)}: {text(value)}" for name, value in seen.items()) + "\n}\n"


def command_line(
    kind: str,
    about: str | None,
    watch: Callable[[Run, bool], dict[str, Any]],
    plot: Callable[[dict[str, Any]], Figure],
    told: Callable[[dict[str, Any]], str],
    argv: Sequence[str] | None,
) -> None:
    """
    The command of a module that watches trainings.

    :param kind: name of the module; files begin with it
    :param about: what ``--help`` says
    :param watch: trains a run, with a progress bar or without, and returns what is to be in its file; a ``ValueError`` before
        the training says that it is of no use for that run
    :param plot: draws it
    :param told: of what was seen, printed at the end
    :param argv: arguments, those of the process by default
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a sweep, or with --draw what was seen before")
    for name in CHOICES:
        parser.add_argument(f"--{name}", help=f"{name} of the run")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--draw", action="store_true", help="draw the picture of a file that is there")
    arguments = parser.parse_args(argv)
    try:
        if arguments.draw:
            target, seen = arguments.file, json.loads(arguments.file.read_text(encoding="utf-8"))
        else:
            run = one_run(arguments.file, {name: getattr(arguments, name) for name in CHOICES})
            th.set_num_threads(1)
            seen = watch(run, sys.stderr.isatty())
    except (OSError, ValueError) as error:
        parser.error(f"{arguments.file}: {error}" if arguments.draw else str(error))
    if not arguments.draw:
        command = " ".join([f"python -m benchmarks.{kind}", *(sys.argv[1:] if argv is None else argv)])
        seen = {"command": command, "versions": {name: version(name) for name in PACKAGES}, **seen}
        name = run.env_id.rpartition("/")[2]
        target = arguments.out / f"{kind}-{name}-k{run.k}-{run.algorithm.replace(' ', '_')}-seed{run.seed}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text_of(seen), encoding="utf-8")
        print(f"{target}: {told(seen)}")
    print(save(plot(seen), target.with_suffix(".png")))
