"""The command ``sb3-rmdp``: scripts of RL Zoo for represented MDPs, evaluation of saved models, model cards, sweeps."""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from sb3_rmdp import __version__
from sb3_rmdp.approval.command import report
from sb3_rmdp.budget.command import budget
from sb3_rmdp.export.command import export, verify
from sb3_rmdp.service.command import assign
from sb3_rmdp.sweep.command import sweep
from sb3_rmdp.zoo import SCRIPTS, run

# What costs time to import, or patches gymnasium, is imported by the command that needs it: --help should not wait
if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

    from sb3_rmdp import RepresentedPPO
    from sb3_rmdp.zoo.run_folder import RunFolder

ZOO_SECTION = "Train and watch, with the scripts of RL Zoo"

#: Not needed to act, and perhaps of classes that are not installed here
UNUSED_SCHEDULES = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0, "clip_range_vf": None}


class BadInput(click.ClickException):
    """One line for the user, and the exit status that click gives to other wrong input."""

    exit_code = 2


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
    """A group whose help lists scripts of the zoo apart from commands of our own."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section for each kind of command."""
        for title, names in {ZOO_SECTION: tuple(SCRIPTS), **SECTIONS}.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in names])


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


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """Errors that the library raises about what the user gave, as one line; with the talk of what it calls on stderr."""
    import gymnasium as gym

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (ValueError, TypeError, OSError, ImportError, gym.error.Error) as error:
        raise BadInput(" ".join(str(error).split())) from error


def parse_env_kwargs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """
    :param values: ``name:value`` each; the value is a literal of Python, or else a string
    :return: values by name
    :raises click.BadParameter: if there is no name
    """
    kwargs: dict[str, Any] = {}
    for text in values:
        name, colon, value = text.partition(":")
        if not colon or not name.isidentifier():
            raise click.BadParameter(f"{text!r} is no name:value; give e.g. population_seed:7")
        try:
            kwargs[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            kwargs[name] = value
    return kwargs


FILE = click.Path(dir_okay=False, allow_dash=True, path_type=Path)


@main.command(short_help="Social welfare of a saved model, and who is served how well.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--env", "env_id", metavar="ID", help="Environment id, or module:id. Not needed in a run folder of RL Zoo.")
@click.option("--episodes", type=click.IntRange(min=1), default=10, show_default=True, help="Episodes per representative.")
@click.option(
    "--deterministic/--stochastic", default=True, show_default=True, help="Likeliest actions, or samples as in training."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of environments and actions.")
@click.option("--n-envs", type=click.IntRange(min=1), help="Copies of the environment.  [default: one per representative]")
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
) -> None:
    """
    Let every representative of MODEL, a zip file, act for some episodes and score all agents in each of them.

    In a run folder of RL Zoo, the environment, its arguments and wrappers and the statistics of VecNormalize are those of the
    training.

    \b
      sb3-rmdp evaluate model.zip --env rmdp/ResourceGathering-v0
      sb3-rmdp evaluate model.zip --env rmdp/ResourceGathering-v0 --stochastic --episodes 100
      sb3-rmdp evaluate model.zip --env rmdp/AntVelocity-v0 --env-kwargs n_agents:50 --json result.json
      sb3-rmdp evaluate logs/rppo/rmdp-ResourceGathering-v0_1/best_model.zip
    """
    from stable_baselines3.common.utils import set_random_seed

    from sb3_rmdp import evaluate_welfare
    from sb3_rmdp.common.report import as_dict, print_result, save_text, to_json

    with bad_input():
        loaded, env, run_folder = load_with_env(model, env_id, env_kwargs, n_envs, seed, statistics, device)
    with with_progress(env, loaded.k * episodes) as watched:
        # Loading has seeded everything with the seed of the training
        set_random_seed(seed)
        env.seed(seed)
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
@click.option("--episodes", type=click.IntRange(min=1), default=10, show_default=True, help="Episodes per representative.")
def card(run_folder: Path, episodes: int) -> None:
    """
    Evaluate the best model in RUN_FOLDER and describe it: welfare, who is served by whom, how it was trained, how to load it.

    \b
      sb3-rmdp card logs/rppo/rmdp-ResourceGathering-v0_1
    """
    with bad_input():
        from sb3_rmdp.zoo.model_card import write_model_card

        path = write_model_card(run_folder, episodes)
    click.echo(f"Wrote {path}")


def load_with_env(
    path: Path,
    env_id: str | None,
    env_kwargs: dict[str, Any],
    n_envs: int | None,
    seed: int,
    statistics: Path | None,
    device: str,
) -> tuple[RepresentedPPO, VecEnv, RunFolder | None]:
    """
    :param path: file of the model
    :param env_id: id of the environment; that of the run folder by default
    :param env_kwargs: arguments of the environment, or those that differ from the run folder's
    :param n_envs: copies of it, k by default
    :param seed: its seed
    :param statistics: file of a VecNormalize
    :param device: of the model
    :return: the model, the environment, and the run folder if this decided what the environment is
    :raises ValueError: if something is wrong or does not fit together, like the next
    :raises FileNotFoundError: if there is no such model
    """
    from stable_baselines3.common.utils import get_device

    from sb3_rmdp import RepresentedPPO
    from sb3_rmdp.common.files import read_model_data
    from sb3_rmdp.common.population import Population, check_same_population, population_of
    from sb3_rmdp.envs.registered import check_registered
    from sb3_rmdp.vec_env import make_represented_vec_env
    from sb3_rmdp.zoo.run_folder import find_run_folder, read_run_folder, with_statistics

    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the zip file of a model, e.g. {path / 'best_model.zip'}")
    try:
        get_device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is none: give cpu, cuda or auto ({error})") from error
    data = read_model_data(path, ("k", "n_agents", "assignment_method"), RepresentedPPO.__name__)
    n_envs = n_envs or data["k"]
    folder = find_run_folder(path)
    run_folder = None if folder is None else read_run_folder(folder)
    if run_folder is not None and (env_id is None or _same_env(env_id, run_folder.env_id)):
        env = run_folder.make_env(env_kwargs, n_envs, seed, statistics)
    else:
        if env_id is None:
            raise ValueError(
                f"{path} lies in no run folder that names its environment: add --env, e.g. --env rmdp/ResourceGathering-v0"
            )
        run_folder = None
        check_registered(env_id)
        env = make_represented_vec_env(env_id, n_envs, seed=seed, env_kwargs=env_kwargs)
        env = env if statistics is None else with_statistics(env, statistics)
    # Before spaces are compared: other agents often mean other observations, and are the better explanation
    check_same_population(Population(data["n_agents"], data.get("population_id"), data.get("n_features")), population_of(env))
    model = RepresentedPPO.load(path, env=env, device=device, custom_objects=UNUSED_SCHEDULES)
    model.check_vec_normalize(env)
    return model, env, run_folder


def _same_env(first: str, second: str) -> bool:
    """Whether two ids name the same environment, with or without a module in front."""
    return first.rpartition(":")[2] == second.rpartition(":")[2]


@contextlib.contextmanager
def with_progress(env: VecEnv, n_episodes: int) -> Iterator[VecEnv]:
    """
    A progress bar on stderr, where that is a terminal.

    :param env: a vec env
    :param n_episodes: episodes until the bar is full
    :return: the same, counting its episodes
    """
    from rich.progress import Progress
    from stable_baselines3.common.vec_env import VecEnvWrapper

    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task("episodes", total=n_episodes)

    class Watched(VecEnvWrapper):
        """Passes everything on, and moves the bar where episodes end."""

        def reset(self) -> Any:
            return self.venv.reset()

        def step_wait(self) -> Any:
            transition = self.venv.step_wait()
            progress.advance(task, int(transition[2].sum()))
            return transition

    with progress:
        yield Watched(env)


if __name__ == "__main__":
    main(prog_name="sb3-rmdp")
