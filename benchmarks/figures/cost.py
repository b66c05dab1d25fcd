"""What sweeps have taken, and what is left of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.figures.plan import Sweep
from sb3_rmdp.sweep.estimate import estimated_seconds


@dataclass(frozen=True)
class Cost:
    """
    :param done: runs that have results
    :param planned: runs
    :param spent: hours that they have trained
    :param left: hours that the others are going to train; ``None`` if nothing like one of them has been run
    """

    done: int
    planned: int
    spent: float
    left: float | None


def costs(sweeps: Sequence[Sweep]) -> list[Cost]:
    """
    :param sweeps: with or without results; what runs of one took tells about those of others
    :return: what each has taken and what is left of it
    """
    ends = [[found[max(found)] for found in sweep.rows.values()] for sweep in sweeps]
    known = [row.cells for rows in ends for row in rows]
    told = []
    for sweep, rows in zip(sweeps, ends, strict=True):
        done = {row.run for row in rows}
        left = estimated_seconds((run for run in sweep.plan.runs if run.id not in done), known)
        sure = [seconds for seconds in left if seconds is not None]
        hours = sum(sure) / 3600 if len(sure) == len(left) else None
        told.append(Cost(len(done), len(sweep.plan.runs), sum(row.seconds for row in rows) / 3600, hours))
    return told
