"""
Seconds per update of RepresentedPPO against k stock PPOs one after the other, memory, where time goes, and what it depends on.

    python -m benchmarks.performance

One update is 2048 transitions per policy, 10 epochs, minibatches of 64 per policy; networks and environments are the same.
Both sides are timed in turn, so that a machine that gets slower or faster meanwhile does not change the ratio; the ratio of
the medians is what counts. Every row and every point of a curve has a process of its own, so that peak memory is its own.
Writes performance.json, performance.md and, with matplotlib, performance.png, and prints the table.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

# Nothing that imports torch: processes count the memory of whoever starts them as theirs until they have more
from benchmarks.performance.report import facts, markdown, table
from benchmarks.performance.rows import QUICK_WORK, ROWS, WORK, Case, Curve, Row, curves, exponent

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CURVE_REPEATS = 1


def in_process(job: dict[str, Any]) -> dict[str, Any]:
    """
    :param job: arguments of a function of ``measure.py``, named by ``what``
    :return: its result, or why there is none
    """
    # Torch is to say how many threads it takes by itself; numpy, whose matrices are small here, stays with one
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.performance.measure", json.dumps(job)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return {"skipped": said[-1], "failed": True}


class Bench:
    """
    Measures rows and points, and tells of it.

    :param work: arguments of the models that make an update
    :param repeats: updates timed per row; by default each row's own number
    :param bar: where progress is shown
    """

    def __init__(self, work: dict[str, Any], repeats: int | None, bar: tqdm):
        self.work, self.repeats, self.bar = work, repeats, bar
        self.rival_threads = cache(self._rival_threads)
        self._known: dict[Case, dict[str, Any]] = {}

    def _rival_threads(self, case: Case) -> dict[str, float]:
        self.bar.set_description(f"threads of stock PPO, {case.env}")
        return in_process({"what": "rival_threads", "case": asdict(case), "work": self.work})

    def measure(self, case: Case, base: Case | None = None, threads: int | None = None, repeats: int = CURVE_REPEATS) -> Any:
        """
        :param case: as all arguments, see ``measure.measure``
        :param base:
        :param threads:
        :param repeats:
        :return: result
        """
        job = {"case": asdict(case), "base": base and asdict(base), "rival_threads": threads, "repeats": repeats}
        result = in_process({"what": "measure", "work": self.work, **job})
        self._known[case] = result
        self.bar.update()
        return result

    def row(self, row: Row) -> dict[str, Any]:
        """
        :param row: to be measured
        :return: what there is to report of it
        """
        head: dict[str, Any] = {"name": row.name, "case": asdict(row.case), "target": row.target()}
        threads = None
        if row.base is None:
            # The rival is the same for all k, so that its best number of threads is
            tried = self.rival_threads(replace(Case(1, 1), env=row.case.env))
            threads = int(min(tried, key=tried.__getitem__)) if "skipped" not in tried else 1
            head |= {"rival_threads": threads, "rival_seconds_by_threads": tried}
        self.bar.set_description(row.name)
        result = self.measure(row.case, row.base, threads, self.repeats or row.repeats)
        if "skipped" in result:
            tqdm.write(f"{row.name}: skipped, {result['skipped']}", file=sys.stderr)
            return head | result
        result["met"] = row.met(result["ratio"], result["memory_gb"])
        verdict = "met" if result["met"] else "missed"
        said = f"{row.name}: {result['ratio']:.2f} ({row.target()}: {verdict}), {result['memory_gb']:.2f} GB"
        tqdm.write(said, file=sys.stderr)
        return head | result

    def curve(self, curve: Curve) -> dict[str, Any]:
        """
        :param curve: whose points are measured, but for those that are known from a row
        :return: what there is to report of it
        """
        self.bar.set_description(f"curve {curve.name}")
        points, skipped = [], None
        for x, case in zip(curve.values(), curve.cases, strict=True):
            result = self._known.get(case) or self.measure(case)
            skipped = result.get("skipped")
            if skipped:
                break
            points.append({"x": x, "seconds": result["ours"]["median"], "memory_gb": result["memory_gb"]})
        xs = [point["x"] for point in points]
        fits = {name: exponent(xs, [point[name] for point in points]) for name in ("seconds", "memory_gb")}
        told = {"name": curve.name, "title": curve.title, "x": curve.x, "points": points, "exponents": fits}
        return told if skipped is None else told | {"skipped": skipped}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Command line.

    :param argv: arguments; by default those of the process
    :return: exit status
    """
    all_curves = {curve.name: curve for curve in curves(os.cpu_count() or 1)}
    rows = {row.name: row for row in ROWS}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.performance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", nargs="*", choices=rows, default=list(rows), metavar="ROW", help=f"of {', '.join(rows)}; all"
    )
    parser.add_argument(
        "--curves",
        nargs="*",
        choices=all_curves,
        default=list(all_curves),
        metavar="CURVE",
        help=f"of {', '.join(all_curves)}; all",
    )
    parser.add_argument("--repeats", type=int, help="updates timed of either side of a row, after those to warm up; 3 to 7")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report; benchmarks/results")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: another row, 50x1000 on the GPU")
    parser.add_argument("--quick", action="store_true", help="tiny updates, short curves: figures mean nothing")
    arguments = parser.parse_args(argv)

    chosen = [rows[name] for name in arguments.rows]
    if arguments.device == "cuda":
        large = rows["50x1000"]
        chosen.append(replace(large, name="50x1000-cuda", case=replace(large.case, device="cuda"), memory=None))
    drawn = [all_curves[name] for name in arguments.curves]
    if arguments.quick:
        drawn = [replace(curve, cases=curve.cases[:2]) for curve in drawn]
    start = time.perf_counter()
    report = facts(arguments.quick, QUICK_WORK if arguments.quick else WORK)
    n_cases = len({row.case for row in chosen} | {case for curve in drawn for case in curve.cases})
    with tqdm(total=n_cases, unit="case") as bar:
        bench = Bench(report["work"], arguments.repeats or (1 if arguments.quick else None), bar)
        report["rows"] = [bench.row(row) for row in chosen]
        report["curves"] = [bench.curve(curve) for curve in drawn]
    report["seconds"] = round(time.perf_counter() - start)

    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "performance.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    has_picture = importlib.util.find_spec("matplotlib") is not None and bool(drawn)
    if has_picture:
        from benchmarks.performance.plot import plot_curves

        plot_curves(report["curves"], arguments.out / "performance.png")
    (arguments.out / "performance.md").write_text(markdown(report, has_picture), encoding="utf-8")
    print(table(report))
    print(f"\nwrote {arguments.out / 'performance.md'}")
    return int(any(part.get("failed") for part in report["rows"]))


if __name__ == "__main__":
    sys.exit(main())
