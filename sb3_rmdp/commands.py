"""What commands have in common: errors in a line, models with their environments, progress."""

from __future__ import annotations

import ast
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

# What costs time to import is imported where it is needed: --help should not wait
if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

    from sb3_rmdp import RepresentedPPO
    from sb3_rmdp.zoo.run_folder import RunFolder

#: Not needed to act, and perhaps of classes that are not installed here
UNUSED_SCHEDULES = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0, "clip_range_vf": None}


class BadInput(click.ClickException):
    """One line for the user, and the exit status that click gives to other wrong input."""

    exit_code = 2


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
