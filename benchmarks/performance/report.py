"""The report: what was measured where, as tables and a few sentences that are made from the figures."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.performance.rows import WARM_UP
from sb3_rmdp.common.assignment import DEFAULT_ASSIGNMENT

PACKAGES = ("sb3_rmdp", "stable_baselines3", "gymnasium", "mujoco", "numpy", "torch")


def facts(quick: bool, work: dict[str, Any]) -> dict[str, Any]:
    """
    :param quick: whether this is no measurement
    :param work: arguments of the models that make an update
    :return: command, date, machine and versions
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "command": " ".join(["python -m benchmarks.performance", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "quick": quick,
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gb": round(memory, 1),
            "load_at_start": round(os.getloadavg()[0], 2),
        },
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "work": work,
        "assignment": DEFAULT_ASSIGNMENT,
        "warm_up": WARM_UP,
    }


def _cpu() -> str:
    """Model of the processor."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text(encoding="utf-8").splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _rows(head: list[str], lines: list[list[str]]) -> str:
    """A markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def _span(timing: dict[str, float]) -> str:
    """Median, minimum and maximum."""
    return f"{timing['median']:.2f} ({timing['min']:.2f} to {timing['max']:.2f})"


def _measured(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in report["rows"] if "skipped" not in row]


def _described(row: dict[str, Any]) -> str:
    """A case in words."""
    case = row["case"]
    words = f"({case['k']}, {case['n']})"
    if "HalfCheetah" not in case["env"]:
        words = f"{case['env'].removeprefix('rmdp/')} {words}"
    words += "".join(f", {name}={case[name]}" for name in ("critic_rank", "n_features") if case[name] is not None)
    return words if case["device"] == "cpu" else f"{words}, {case['device']}"


def table(report: dict[str, Any]) -> str:
    """
    :param report: all that was measured
    :return: the table of rows and targets
    """
    lines = []
    for row in report["rows"]:
        if "skipped" in row:
            lines.append([_described(row), "", "", "", "", row["target"], "", f"skipped: {row['skipped']}"])
            continue
        cells = [
            _described(row),
            str(row["threads"]),
            _span(row["ours"]),
            _span(row["rival"]),
            f"{row['ratio']:.2f}",
            row["target"],
        ]
        lines.append([*cells, f"{row['memory_gb']:.2f} GB", "met" if row["met"] else "**missed**"])
    return _rows(["(k, n)", "threads", "seconds per update", "rival", "ratio", "target", "peak memory", ""], lines)


def _shares(report: dict[str, Any]) -> str:
    rows = _measured(report)
    parts = list(rows[0]["shares"])
    return _rows(["(k, n)", *parts], [[_described(row), *(f"{row['shares'][part]:.0%}" for part in parts)] for row in rows])


def _floors(report: dict[str, Any]) -> str:
    lines = []
    for row in _measured(report):
        floor = row["floor"]
        total = floor["simulation"] + floor["products"]
        figures = [f"{floor['simulation']:.2f}", f"{floor['products']:.2f}", f"{floor['gflop']:.0f}"]
        lines.append([_described(row), *figures, f"{row['ours']['median'] / total:.1f}"])
    return _rows(["(k, n)", "simulation, s", "products, s", "GFLOP", "update / floor"], lines)


def _curves(report: dict[str, Any]) -> str:
    lines = []
    for curve in report["curves"]:
        exponents = [f"{value:.2f}" if value is not None else "" for value in curve["exponents"].values()]
        points = "; ".join(f"{point['x']}: {point['seconds']:.2f} s, {point['memory_gb']:.2f} GB" for point in curve["points"])
        if "skipped" in curve:
            points = f"{points} (then skipped: {curve['skipped']})"
        lines.append([curve["title"], points, *exponents])
    return _rows(["against", "per update", "exponent of time", "of memory"], lines)


def limits(report: dict[str, Any]) -> list[str]:
    """
    :param report: all that was measured
    :return: sentences on what would have to get faster next
    """
    sentences = []
    for row in _measured(report):
        (first, share), (second, other) = sorted(row["shares"].items(), key=lambda item: -item[1])[:2]
        seconds, floor = row["ours"]["median"], row["floor"]["simulation"] + row["floor"]["products"]
        sentences.append(
            f"{_described(row)}: {first} ({share:.0%}), then {second} ({other:.0%}). Of {seconds:.2f} s, {floor:.2f} s are "
            f"simulation and products alone; if {first} took no time, {seconds * (1 - share):.2f} s would be left."
        )
    return sentences


def _threads(report: dict[str, Any]) -> str:
    """What was tried for the rival, and taken."""
    said = set()
    for row in report["rows"]:
        tried = row.get("rival_seconds_by_threads", {})
        if tried and "skipped" not in tried:
            times = " and ".join(f"{seconds:.2f} s with {count}" for count, seconds in tried.items())
            said.add(f"{row['rival_threads']} on {row['case']['env']} ({times})")
    return ", ".join(sorted(said)) or "not measured"


#: Around the table, which the documentation shows
MARKS = "<!-- table -->", "<!-- end of table -->"

HEAD = """# Measured time and memory

`{command}`, {date}, {seconds} s; {cpu}, {cores} cores, {memory_gb:g} GB, load {load_at_start:g} at the start; {packages}.

{warning}One update is {n_steps} transitions per policy, {n_epochs} epochs, minibatches of {batch_size} per policy; all else
are defaults of PPO, and assignment="{assignment}". rmdp/HalfCheetahVelocity-v0 unless said. Medians with minimum and maximum,
of ours after {warm_up} to warm up, and of the rival after one.

The rival is k stock PPOs of SB3 one after the other: one of them is timed in turn with ours in the same process, on the same
environment with a single agent, and its time is multiplied by k. The ratio says how many times faster ours is. Ours has
as many threads as torch and its vec env take by themselves. The rival has one thread of torch or torch's own choice, whichever
took less time before: {threads}. With c idle cores, c of the rival's trainings could run side by side.
Where the target names another n, the rival is ours with that n, and the ratio says how many times as long ours takes. Peak
memory is that of the process, the rival included."""

SHARES = """## Where the time goes

Shares of an update, measured in one of its own with one thread of torch: the clocks enter into none of the ratios above."""

FLOOR = """## What cannot be had

The simulation alone is the last rollout's actions in a bare loop around `mj_step`, in as many threads as the vec env has; for
Resource Gathering, a bare loop over the table of moves. The products are those of matrices alone, forward and backward, for
the rollout and all epochs, each in as many threads as torch takes by itself; ours, which deals out tasks to threads instead,
can be faster. Activations, losses, the optimizer, rewards and returns come on top, so this is no target.

What is between floor and update with few policies could be had in part by a second process for the critic, and neither by more
threads nor by a compiler: `python -m benchmarks.overlap` measures it, `overlap.json` has the result, and the page "Performance
and scale" says why it is left alone."""

CURVES = """## What it depends on

Exponents are a in c * x^a, fitted by least squares in logarithms. Where x is small, what does not depend on it dominates.
Points that are no rows of the table above are single updates after those to warm up, and noisy."""


def markdown(report: dict[str, Any], has_picture: bool) -> str:
    """
    :param report: all that was measured
    :param has_picture: whether performance.png lies beside the report
    :return: the report as a page
    """
    packages = ", ".join(f"{name} {number}" for name, number in sorted(report["versions"].items()))
    warning = "**A quick run, to see whether everything works: its figures mean nothing.**\n\n" if report["quick"] else ""
    said = {**report, **report["machine"], **report["work"]}
    parts = [
        HEAD.format(**said, packages=packages, warning=warning, threads=_threads(report)),
        MARKS[0],
        table(report),
        MARKS[1],
    ]
    if _measured(report):
        parts += [SHARES, _shares(report), FLOOR, _floors(report)]
    if report["curves"]:
        parts += [CURVES, _curves(report)]
        if has_picture:
            parts.append("![Time and memory per update](performance.png)")
    if _measured(report):
        parts += ["## What limits next", "\n".join(f"- {sentence}" for sentence in limits(report))]
    return "\n\n".join(parts) + "\n"
