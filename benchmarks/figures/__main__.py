"""
Figures and tables of the paper's experiments, redrawn from results that are there.

    python -m benchmarks.figures

reads benchmarks/sweeps/*.yml and the results they name, and writes pictures and tables.md to benchmarks/results/figures. The
same results give the same bytes. A figure without results is skipped, and the command that makes them is told.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures.data import BadResults
from benchmarks.figures.report import Report
from benchmarks.figures.tables import KINDS

BENCHMARKS = Path(__file__).parents[1]


def main(argv: Sequence[str] | None = None) -> int:
    """
    Command line.

    :param argv: arguments; by default those of the process
    :return: exit status
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=Path, default=BENCHMARKS / "sweeps", help="folder of sweeps; benchmarks/sweeps")
    parser.add_argument("--results", type=Path, default=BENCHMARKS / "results", help="of results; benchmarks/results")
    parser.add_argument("--out", type=Path, help="of what is written; the folder figures in that of the results")
    parser.add_argument("--welfare", choices=KINDS, default=KINDS[0], help="of which policies pictures are; stochastic")
    arguments = parser.parse_args(argv)
    out = arguments.out or arguments.results / "figures"
    try:
        page = Report(arguments.sweeps, arguments.results, out, arguments.welfare, print).make()
    except BadResults as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
