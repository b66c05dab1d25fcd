"""The command ``sb3-rmdp budget``. What costs time to import is imported when it runs: --help should not wait."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from sb3_rmdp.commands import (
    COUNT,
    bad_input,
    check_device,
    check_outputs,
    parse_env_kwargs,
    trusted_option,
    with_suffix,
)

if TYPE_CHECKING:
    from sb3_rmdp.budget.curve import BudgetCurve

#: Status of a process that Ctrl-C has ended
INTERRUPTED = 130

#: Numbers of policies
DEFAULT_KS = (1, 2, 3, 5)

#: Where models and results go by default, in a folder named like the environment
OUT = Path("runs/budget")

#: More are a slip of the keyboard
MOST_TRANSITIONS, MOST_SEEDS = 10**12, 10_000

#: Options for trainings alone
OF_TRAININGS = ("ks", "transitions", "seeds", "cold", "params")


class ManyValues(click.Command):
    """A command in which ``-k 1 2 3`` and ``--models a.zip b.zip`` mean all words up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each of its words."""
        words: list[str] = []
        option = None
        for word in args:
            if word.startswith("-") and word != "-":
                option = word if word in ("-k", "--k", "--models") else None
                words.append(word)
            elif option is not None and words[-1] != option and (option == "--models" or _is_list(word)):
                words += [option, word]
            else:
                if option is not None and words[-1] != option:
                    option = None  # no more of its words: the environment
                words.append(word)
        return super().parse_args(ctx, words)


def _is_list(word: str) -> bool:
    return all(part.strip().isdigit() for part in word.split(",") if part)


def parse_numbers(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """
    :param values: numbers, or numbers with commas between them
    :return: all of them
    :raises click.BadParameter: if one is none
    """
    numbers = []
    for part in ",".join(values).split(","):
        if not part.strip() and not values:
            continue
        try:
            numbers.append(int(part))
        except ValueError as error:
            raise click.BadParameter(f"{part!r} is no number of policies; give e.g. -k 1 2 3 5, or -k 1,2,3,5") from error
    return tuple(numbers)


@click.command(cls=ManyValues, short_help="How many policies are needed: welfare against k, and what the next one is worth.")
@click.argument("env_id", metavar="[ENV_ID]", required=False)
@click.option(
    "-k",
    "--k",
    "ks",
    multiple=True,
    metavar="K...",
    callback=parse_numbers,
    help="Numbers of policies, rising.  [default: 1 2 3 5]",
)
@click.option(
    "--transitions",
    type=click.IntRange(1, MOST_TRANSITIONS),
    help="Of each training, per policy.  [default: the tuned length]",
)
@click.option("--seeds", type=click.IntRange(1, MOST_SEEDS), help="Trainings for each k, with seeds 0, 1, ...  [default: 1]")
@click.option("--cold", is_flag=True, help="Start every model afresh, not from the policies of the k before.")
@click.option(
    "-p",
    "--param",
    "params",
    multiple=True,
    metavar="NAME:VALUE",
    callback=parse_env_kwargs,
    help="Hyperparameter in the place of the tuned one; may be repeated.",
)
@click.option(
    "--models",
    multiple=True,
    metavar="FILE...",
    type=click.Path(path_type=Path),
    help="Zip files of models to evaluate, in the place of trainings; several of one k are seeds.",
)
@click.option("--env", "env_option", metavar="ID", help="Same as ENV_ID. Not needed for models in run folders of RL Zoo.")
@click.option(
    "--env-kwargs", multiple=True, metavar="NAME:VALUE", callback=parse_env_kwargs, help="Argument of the environment."
)
@click.option("--episodes", type=COUNT, default=10, show_default=True, help="Episodes per policy to evaluate.")
@click.option(
    "--deterministic/--stochastic", default=True, show_default=True, help="Likeliest actions, or samples as in training."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Folder for models, budget.json and budget.png.  [default: {OUT}/ENV_ID; with --models, none]",
)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), help='A file, or "-".')
@click.option("--no-plot", is_flag=True, help="Draw no picture: matplotlib is not needed.")
@click.option("--device", default="auto", show_default=True, help='"cpu", "cuda", or "auto".')
@trusted_option
def budget(
    env_id: str | None,
    ks: tuple[int, ...],
    transitions: int | None,
    seeds: int | None,
    cold: bool,
    params: dict[str, Any],
    models: tuple[Path, ...],
    env_option: str | None,
    env_kwargs: dict[str, Any],
    episodes: int,
    deterministic: bool,
    out: Path | None,
    json_file: Path | None,
    no_plot: bool,
    device: str,
    trusted: bool,
) -> None:
    """
    Train models for several numbers of policies k in ENV_ID, each from the policies of the k before, and show welfare, the
    worst-off agent and the gain of the next policy against k.

    Models are kept as they are finished. Press Ctrl-C to stop; the same command goes on with those that are not there.

    \b
      sb3-rmdp budget rmdp/ResourceGathering-v0
      sb3-rmdp budget rmdp/ResourceGathering-v0 -k 1 2 3 5 --transitions 100_000 --seeds 3 --out runs/how_many
      sb3-rmdp budget rmdp/HopperVelocity-v0 -k 1,5,10 --env-kwargs n_agents:50 -p learning_rate:lin_3e-4
      sb3-rmdp budget --models k1.zip k3.zip k5.zip --env rmdp/ResourceGathering-v0 --json -

    Hyperparameters are the tuned ones of the environment, as for "sb3-rmdp train".
    """

    # Modules of the user's own are found where the command is called, as they are by "python -m"
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    with bad_input():
        from sb3_rmdp.budget import budget_curve, budget_of_models
        from sb3_rmdp.budget.curve import check_can_plot

        if env_id is not None and env_option is not None and env_id != env_option:
            raise ValueError(f"two environments, {env_id} and {env_option}: give one")
        env_id = env_id or env_option
        check_device(device)
        given = {"ks": ks, "transitions": transitions, "seeds": seeds, "cold": cold, "params": params}
        wrong = [name for name in OF_TRAININGS if given[name]]
        if models and wrong:
            raise ValueError(f"--models are trained already: leave out {', '.join(_option(name) for name in wrong)}")
        if not models:
            if env_id is None:
                raise ValueError("no environment to train in: give one, e.g. rmdp/ResourceGathering-v0, or --models")
            out = out or OUT / env_id.rpartition(":")[2].replace("/", "-")
        if out is not None and not no_plot:
            check_can_plot()
        json_file = with_suffix(json_file, ".json")
        check_outputs(_outputs(out, json_file, () if models else ks or DEFAULT_KS, seeds or 1, not no_plot), models)
        evaluation: dict[str, Any] = dict(n_eval_episodes=episodes, deterministic=deterministic, env_kwargs=env_kwargs)
        if models:
            curve = budget_of_models(models, env_id, device=device, trusted=trusted, **evaluation)
        else:
            assert env_id is not None and out is not None
            try:
                curve = budget_curve(
                    env_id,
                    ks or DEFAULT_KS,
                    transitions,
                    seeds or 1,
                    not cold,
                    model_kwargs={**params, "device": device},
                    folder=out,
                    progress=True,
                    **evaluation,
                )
            except KeyboardInterrupt:
                click.echo(f"Stopped. Finished models are in {out}; the same command goes on with the rest.", err=True)
                raise SystemExit(INTERRUPTED) from None
        written = _write(curve, out, json_file, not no_plot)
    if json_file is not None and str(json_file) == "-":
        from sb3_rmdp.common.report import to_json

        click.echo(to_json(curve.as_dict()), nl=False)
    else:
        console = Console(highlight=False, markup=False)
        console.print(curve.table())
        for line in curve.summary():
            console.print(line, soft_wrap=True)
    for path in written:
        click.echo(f"Wrote {path}", err=True)


def _outputs(out: Path | None, json_file: Path | None, ks: Sequence[int], seeds: int, plot: bool) -> dict[str, Path | None]:
    """Files that are written, by what they are."""
    outputs: dict[str, Path | None] = {"--json": json_file}
    if out is not None:
        outputs["--out"] = out / "budget.json"
        outputs["the picture"] = out / "budget.png" if plot else None
        names = [f"k{k}_seed{seed}" for k in sorted(set(ks)) for seed in range(seeds)]
        outputs.update({f"the model {name}{end}": out / f"{name}{end}" for name in names for end in (".zip", ".json")})
    return outputs


def _write(curve: BudgetCurve, out: Path | None, json_file: Path | None, with_plot: bool) -> list[Path]:
    """Files of a curve, but for stdout."""
    written = []
    if out is not None:
        written.append(curve.save(out / "budget.json"))
        if with_plot:
            curve.plot(out / "budget.png")
            written.append(out / "budget.png")
    if json_file is not None and str(json_file) != "-":
        written.append(curve.save(json_file))
    return written


def _option(name: str) -> str:
    return {"ks": "-k", "params": "--param"}.get(name, f"--{name}")
