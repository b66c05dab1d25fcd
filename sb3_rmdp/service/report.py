"""Reports of who serves new users: tables for the terminal, plain data for other programs, a picture."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sb3_rmdp.service.judging import POWER, NewUsers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Users up to which there is a row for each in tables and pictures
FEW = 20

#: Characters of the longest bar
BAR = 20

#: Of CSV, after the number of the user
COLUMNS = (
    "representative",
    "expected_return",
    "standard_error",
    "lower",
    "upper",
    "confident",
    "runner_up",
    "episodes_needed",
    "cross_validated",
    "best_possible",
    "regret",
)

#: Formats that a picture can have, by suffix
PICTURES = (".png", ".pdf", ".svg")


def print_new_users(result: NewUsers) -> None:
    """
    :param result: who serves new users
    """
    console = Console(markup=False, highlight=False)
    console.print(_rows(result) if len(result) <= FEW else _groups(result))
    for line in conclusions(result):
        console.print(line, soft_wrap=True)


def _rows(result: NewUsers) -> Table:
    table = Table(box=SIMPLE_HEAD, title=f"{result.n_episodes} recorded episodes of each representative")
    level = f"{100 * result.confidence:g} % interval"
    for column in ("user", "served by", "return", level, "sure", "best", "regret", "needs"):
        # In a narrow terminal intervals take two lines, and nothing is cut off
        table.add_column(column, justify="right", no_wrap=column != level)
    table.caption = "return: mean of the episodes; best: possible return; needs: episodes of each representative to be sure"
    for user in range(len(result)):
        table.add_row(
            str(user),
            str(result.representative[user]),
            f"{result.expected_return[user]:.2f}",
            f"{result.lower[user]:.2f} to {result.upper[user]:.2f}",
            "yes" if result.confident[user] else "no",
            f"{result.best_possible[user]:.2f}",
            f"{result.regret[user]:.2f}",
            _number(result.episodes_needed[user]),
        )
    return table


def _groups(result: NewUsers) -> Table:
    table = Table("served by", box=SIMPLE_HEAD, title=f"{len(result)} users, {result.n_episodes} recorded episodes each")
    for column in ("users", "return", "regret", "sure"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    sizes = result.group_sizes
    for index, size in enumerate(sizes):
        served = result.representative == index
        cells = ["-"] * 3
        if size:
            means = result.expected_return[served].mean(), result.regret[served].mean()
            cells = [*(f"{mean:.2f}" for mean in means), f"{100 * result.confident[served].mean():.1f} %"]
        table.add_row(str(index), str(size), *cells, "#" * round(BAR * size / sizes.max()))
    return table


def conclusions(result: NewUsers) -> list[str]:
    """
    :param result: who serves new users
    :return: what it comes down to, in a few lines
    """
    level = f"{100 * result.confidence:g} %"
    lines = []
    if len(result) > 1:
        lines.append(
            f"Mean expected return {result.expected_return.mean():.2f}, cross-validated {result.cross_validated.mean():.2f}; "
            f"mean regret {result.regret.mean():.2f}"
        )
    unsure = result.episodes_needed[~result.confident]
    lines.append(f"The best representative is known at {level} for {len(result) - len(unsure)} of {len(result)} users")
    finite = unsure[np.isfinite(unsure)]
    if len(finite):
        most, half = finite.max(), np.median(finite)
        what = (
            f"{half:.0f} episodes per representative"
            if len(finite) == 1
            else f"{half:.0f} for half of them, {most:.0f} for all"
        )
        lines.append(
            f"Of the others, {len(finite)} would be with more episodes: {what} (probability {POWER:g}, as far as these tell)"
        )
    if len(finite) < len(unsure):
        reason = "returns are equal" if result.fit_error is None else "returns are equal, or more scores are needed"
        lines.append(f"For {len(unsure) - len(finite)} no number of episodes tells two representatives apart: {reason}")
    still = int((result.standard_error == 0.0).sum())
    if still:
        rare = f"what happens in one of {max(round(result.n_episodes / 3), 1)} episodes may be missing from them"
        lines.append(f"All {result.n_episodes} episodes paid {still} of {len(result)} users the same; {rare}")
    if result.fit_error is not None:
        lines.append(
            f"A score is predicted from the others with an error of {result.fit_error[0]:.2f}; intervals allow for it"
        )
    lines.append(
        "Regret is against the best possible return that was given"
        if result.best_is_given
        else "Regret is against the best of all recorded episodes, which is luck in part where the environment is random"
    )
    return lines


def _number(episodes: float) -> str:
    return "-" if not np.isfinite(episodes) else f"{episodes:.0f}"


def as_dict(result: NewUsers) -> dict[str, Any]:
    """
    :param result: who serves new users
    :return: its fields and properties by name
    """
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    properties = ("expected_return", "standard_error", "regret", "regret_lower", "regret_upper", "group_sizes")
    return {**fields, **{name: getattr(result, name) for name in properties}}


def to_csv(result: NewUsers) -> str:
    """
    :param result: who serves new users
    :return: a header and a row per user, numbers in full precision
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("user", *COLUMNS))
    columns = [getattr(result, name) for name in COLUMNS]
    # Truth as 1 and 0, which every program reads
    columns = [(column.astype(int) if column.dtype == bool else column).tolist() for column in columns]
    writer.writerows(zip(range(len(result)), *columns, strict=True))
    return text.getvalue()


def check_picture(path: Path) -> None:
    """
    :param path: file that a picture is to be written to
    :raises ValueError: if its suffix names no format of pictures, or matplotlib is not installed
    """
    if path.suffix.lower() not in PICTURES:
        raise ValueError(f"{path} names no format of pictures: end it with {', '.join(PICTURES[:-1])} or {PICTURES[-1]}")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError('pictures need matplotlib, which is not installed: pip install "sb3_rmdp[plots]"') from error


def save_picture(result: NewUsers, path: Path) -> None:
    """
    :param result: who serves new users
    :param path: file, written whole or not at all
    :raises ValueError: see :func:`check_picture`
    """
    check_picture(path)
    from sb3_rmdp.plots.style import save_figure

    save_figure(plot_new_users(result), path)


def plot_new_users(result: NewUsers) -> Figure:
    """
    Of few users the return under every representative and the interval of the chosen one; of many, how regret is distributed.

    :param result: who serves new users
    :return: the figure; needs matplotlib
    """
    from matplotlib.figure import Figure

    from sb3_rmdp.plots.style import DARK, FAINT, label_axes, palette

    colours = palette(result.k)
    rows = np.arange(len(result))
    few = len(result) <= FEW
    figure = Figure(figsize=(6.4, 1.2 + 0.3 * max(len(result), 4) if few else 4.2), layout="constrained")
    axes = figure.add_subplot()
    if few:
        for j in range(result.k):
            served = result.representative == j
            axes.plot(result.expected_returns[~served, j], rows[~served], "|", color=colours[j], markersize=9)
            mean = result.expected_return[served]
            around = np.stack([mean - result.lower[served], result.upper[served] - mean])
            label = f"representative {j}" if result.k <= 10 else None
            axes.errorbar(mean, rows[served], xerr=around, fmt="o", color=colours[j], capsize=3, label=label)
        axes.plot(result.best_possible, rows, "D", color="none", markeredgecolor=DARK, markersize=5, label="best possible")
        axes.set_yticks(rows)
        axes.invert_yaxis()
        label_axes(axes, f"expected return and its {100 * result.confidence:g} % interval", "user")
        figure.legend(loc="outside right upper", frameon=False)
    else:
        groups = [result.regret[result.representative == j] for j in range(result.k)]
        labels = [f"representative {j}" for j in range(result.k)] if result.k <= 10 else None
        axes.hist(groups, bins=40, stacked=True, color=colours, label=labels)
        axes.axvline(result.regret.mean(), color=FAINT, linestyle="--", label=f"mean {result.regret.mean():.2f}")
        label_axes(axes, "regret", "users")
        axes.legend(frameon=False)
    return figure
