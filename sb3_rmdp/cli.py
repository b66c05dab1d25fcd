"""The command ``sb3-rmdp``: scripts of RL Zoo for represented MDPs, and commands of our own, each in its own room."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from sb3_rmdp import __version__
from sb3_rmdp.approval.command import report
from sb3_rmdp.budget.command import budget
from sb3_rmdp.commands import (
    COPIES,
    COUNT,
    BadInput,
    bad_input,
    check_outputs,
    load_with_env,
    one_line,
    parse_env_kwargs,
    trusted_option,
    wants_traceback,
    with_progress,
    with_suffix,
)
from sb3_rmdp.export.command import export, verify
from sb3_rmdp.service.command import assign
from sb3_rmdp.sweep.command import sweep
from sb3_rmdp.zoo import SCRIPTS, run

ZOO_SECTION = "Train and watch, with the scripts of RL Zoo"

#: Commands of our own, as the help lists them
SECTIONS = {
    "Judge a saved model": ("evaluate", "card", "report"),
    "Put it into service": ("export", "verify", "assign"),
    "Experiments": ("budget", "sweep"),
}


class ZooScript(click.Command):
    """
    A script of the zoo, which reads its arguments, ``--help`` included, by itself.

    :param name: name of the script
    :param summary: what it does, in a line
    """

    def __init__(self, name: str, summary: str):
        super().__init__(name, short_help=summary, add_help_option=False)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep all arguments as they are."""
        ctx.args = list(args)
        return []

    def invoke(self, ctx: click.Context) -> None:
        """Run the script; what it says on leaving becomes an error line."""
        assert self.name is not None
        try:
            run(self.name, ctx.args)
        except SystemExit as end:
            if isinstance(end.code, str):
                raise BadInput(end.code.removeprefix("error: ")) from end
            raise


class Sections(click.Group):
    """A group whose help lists scripts of the zoo apart from commands of our own, and whose errors are one line each."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """See click; whatever else goes wrong, a full disk behind stdout included, is one line and exit status 1."""
        try:
            try:
                return super().main(*args, **kwargs)
            finally:
                sys.stdout.flush()
        except Exception as error:
            if wants_traceback() or kwargs.get("standalone_mode") is False:
                raise
            _forget_output()
            click.echo(f"Error: {one_line(error, with_hint=True)}", err=True)
            raise SystemExit(1) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each kind of command."""
        for title, names in {ZOO_SECTION: tuple(SCRIPTS), **SECTIONS}.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])


def _forget_output() -> None:
    """What could not be written to stdout would be tried again, and complained about, when Python ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # no file, in tests
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sb3-rmdp")
def main() -> None:
    """
    Many users, few policies.

    In a represented MDP, n agents (users) share one environment, each with rewards of its own, and only k policies
    (representatives) may act for them. RepresentedPPO learns the policies and who is served by which, so that social welfare,
    the mean return of all agents under their own representative, is high.

    \b
    Three policies for the 25 agents of a grid world; train, judge, show:
      sb3-rmdp train --algo rppo --env rmdp/ResourceGathering-v0 -f logs
      sb3-rmdp evaluate logs/rppo/rmdp-ResourceGathering-v0_1/best_model.zip
      sb3-rmdp card logs/rppo/rmdp-ResourceGathering-v0_1
      sb3-rmdp enjoy --algo rppo --env rmdp/ResourceGathering-v0 -f logs --no-render

    \b
    How many policies are needed, and what the next one is worth:
      sb3-rmdp budget rmdp/ResourceGathering-v0 -k 1 2 3 5 --seeds 3

    \b
    Welfare of several algorithms, budgets and seeds, on all cores of this machine or on a cluster:
      sb3-rmdp sweep my_sweep.yml

    \b
    A model of your own, on other users than the default ones, for another program to read:
      sb3-rmdp evaluate model.zip --env rmdp/HopperVelocity-v0 --env-kwargs population_seed:7 --json -

    "sb3-rmdp COMMAND --help" lists the options of a command.
    """


for _name, _summary in SCRIPTS.items():
    main.add_command(ZooScript(_name, _summary))
main.add_command(assign)
main.add_command(budget)
main.add_command(report)
main.add_command(sweep)
main.add_command(export)
main.add_command(verify)


FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


@main.command(short_help="Social welfare of a saved model, and who is served how well.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--env", "env_id", metavar="ID", help="Environment id, or module:id. Not needed in a run folder of RL Zoo.")
@click.option("--episodes", type=COUNT, default=10, show_default=True, help="Episodes per representative.")
@click.option(
    "--deterministic/--stochastic", default=True, show_default=True, help="Likeliest actions, or samples as in training."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of environments and actions.")
@click.option("--n-envs", type=COPIES, help="Copies of the environment.  [default: one per representative]")
@click.option(
    "--env-kwargs",
    multiple=True,
    metavar="NAME:VALUE",
    callback=parse_env_kwargs,
    help="Argument of the environment; may be repeated. In a run folder, changes that of the training.",
)
@click.option(
    "--vec-normalize",
    "statistics",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Statistics that VecNormalize saved. Found by themselves in a run folder.",
)
@click.option("--json", "json_file", type=FILE, help='Write everything to this file, or to stdout for "-".')
@click.option("--device", default="auto", show_default=True, help='"cpu", "cuda", or "auto".')
@trusted_option
def evaluate(
    model: Path,
    env_id: str | None,
    episodes: int,
    deterministic: bool,
    seed: int,
    n_envs: int | None,
    env_kwargs: dict[str, Any],
    statistics: Path | None,
    json_file: Path | None,
    device: str,
    trusted: bool,
) -> None:
    """
    Let every representative of MODEL, a zip file, act for some episodes and score all agents in each of them.

    In a run folder of RL Zoo, the environment, its arguments and wrappers and the statistics of VecNormalize are those of the
    training, unless --env names one. Nothing in MODEL or its folder is run unless you say --trusted.

    \b
      sb3-rmdp evaluate model.zip --env rmdp/ResourceGathering-v0
      sb3-rmdp evaluate model.zip --env rmdp/ResourceGathering-v0 --stochastic --episodes 100
      sb3-rmdp evaluate model.zip --env rmdp/AntVelocity-v0 --env-kwargs n_agents:50 --json result.json
      sb3-rmdp evaluate logs/rppo/rmdp-ResourceGathering-v0_1/best_model.zip
    """
    from sb3_rmdp import evaluate_welfare
    from sb3_rmdp.common.report import as_dict, print_result, save_text, to_json
    from sb3_rmdp.common.seeds import seed_evaluation

    with bad_input():
        json_file = with_suffix(json_file, ".json")
        check_outputs({"--json": json_file}, [model, statistics])
        loaded, env, run_folder = load_with_env(model, env_id, env_kwargs, n_envs, seed, statistics, device, trusted)
    with with_progress(env, loaded.k * episodes) as watched:
        # Loading has seeded everything with the seed of the training
        seed_evaluation(env, seed)
        result = evaluate_welfare(loaded, watched, episodes, deterministic)
    env.close()

    if json_file is None or str(json_file) != "-":
        print_result(result, deterministic)
    if json_file is not None:
        facts = {
            "model": str(model),
            "env": env_id or (run_folder and run_folder.env_id),
            "env_kwargs": {**(run_folder.env_kwargs if run_folder else {}), **env_kwargs},
            "deterministic": deterministic,
            "seed": seed,
        }
        text = to_json({**facts, **as_dict(result)})
        if str(json_file) == "-":
            click.echo(text, nl=False)
        else:
            with bad_input():
                json_file = save_text(text, json_file, ".json")
            click.echo(f"Wrote {json_file}", err=True)


@main.command(short_help="Write model_card.md and pictures into a run folder of RL Zoo.")
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--episodes", type=COUNT, default=10, show_default=True, help="Episodes per representative.")
@trusted_option
def card(run_folder: Path, episodes: int, trusted: bool) -> None:
    """
    Evaluate the best model in RUN_FOLDER and describe it: welfare, who is served by whom, how it was trained, how to load it.

    \b
      sb3-rmdp card logs/rppo/rmdp-ResourceGathering-v0_1
    """
    with bad_input():
        from sb3_rmdp.zoo.model_card import write_model_card

        if not run_folder.name:
            raise ValueError(f"RUN_FOLDER '{run_folder}' names no folder: give that of a training")
        path = write_model_card(run_folder, episodes, trusted=trusted)
    click.echo(f"Wrote {path}")


if __name__ == "__main__":
    main(prog_name="sb3-rmdp")
