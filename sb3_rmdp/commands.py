"""What commands have in common: errors in a line, models with their environments, progress."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console

from sb3_rmdp.common import whole_files

# What costs time to import is imported where it is needed: --help should not wait
if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv

    from sb3_rmdp import RepresentedPPO
    from sb3_rmdp.zoo.run_folder import RunFolder

#: Not needed to act, and perhaps of classes that are not installed here
UNUSED_SCHEDULES = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0, "clip_range_vf": None}

#: Variable of the environment that asks for tracebacks
TRACEBACK = "SB3_RMDP_TRACEBACK"

#: More of anything that is counted is a slip of the keyboard, and would not end
MOST = 1_000_000

#: Numbers of episodes, and of environments beside one another
COUNT, COPIES = click.IntRange(1, MOST), click.IntRange(1, 10_000)

Command = TypeVar("Command", bound=Callable[..., Any])


class BadInput(click.ClickException):
    """One line for the user, and the exit status that click gives to other wrong input."""

    exit_code = 2


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """
    Errors about what the user gave, as one line; with the talk of what is called on stderr.

    Those that the library raises speak for themselves. Files and modules of others may raise anything: of what is no such
    error, the line tells the type as well, and how to see where it comes from.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        if wants_traceback():
            raise
        raise BadInput(one_line(error, with_hint=True)) from error


def wants_traceback() -> bool:
    """Whether errors are to be raised, not told in a line."""
    return bool(os.environ.get(TRACEBACK))


def one_line(error: BaseException, with_hint: bool = False) -> str:
    """
    :param error: any error
    :param with_hint: say how to see where an unexpected one comes from
    :return: what it says, in one line; with its type where that is not one that the library raises
    """
    import gymnasium as gym

    text = " ".join(str(error).split())
    if text and isinstance(error, (ValueError, TypeError, OSError, ImportError, gym.error.Error)):
        return text
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{text} ({TRACEBACK}=1 in the environment shows where)" if with_hint else text


@contextlib.contextmanager
def naming(path: str | Path, what: str) -> Iterator[None]:
    """
    Errors about a file, all of them with its name.

    :param path: the file
    :param what: it should hold, for errors that do not tell
    :raises ValueError: in the place of any error that does not name the file
    """
    try:
        yield
    except Exception as error:  # what reads damaged files may raise anything
        clear = isinstance(error, (ValueError, OSError, ImportError)) and str(error)
        told = str(error).replace("pass trusted=True", "pass --trusted (trusted=True)")
        if clear and str(path) in told:
            if told == str(error):
                raise
            raise ValueError(told) from error
        if clear:
            raise ValueError(f"{path}: {told}") from error
        raise ValueError(
            f"{path} cannot be read as {what} ({one_line(error)}): it is damaged, was saved by another version, or needs a "
            "module that cannot be imported here"
        ) from error


def trusted_option(command: Command) -> Command:
    """
    :param command: one that opens models or statistics of VecNormalize
    :return: the same with the option ``--trusted``
    """
    return click.option(
        "--trusted",
        is_flag=True,
        help="Run code that files hold or name: pickles in models, objects and modules in settings of RL Zoo. Only if you "
        "know where they are from.",
    )(command)


def check_device(device: str) -> None:
    """
    :param device: name of a device
    :raises ValueError: if there is none of this name here that can be computed on
    """
    import torch as th
    from stable_baselines3.common.utils import get_device

    try:
        # There are devices without numbers, and names of devices that are not built in
        th.zeros(1, device=get_device(device)).cpu()
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"device={device!r} is none: give cpu, cuda or auto ({said})") from error


def check_outputs(outputs: dict[str, Path | None], inputs: Sequence[Path | None]) -> None:
    """
    See that what a command writes can be written, and replaces nothing that it reads, also under another spelling, or through
    links.

    :param outputs: files that are to be written, by option; ``-`` is stdout
    :param inputs: files that are read; a model may be named without ".zip"
    :raises ValueError: if an output is an input or another output, or has no name
    :raises OSError: if an output cannot be written
    """
    read = {_identity(path): path for given in inputs if given is not None for path in (given, Path(f"{given}.zip"))}
    written: dict[object, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        if not path.name:
            raise ValueError(f"{option} '{path}' names no file")
        if str(path) == "-":
            identity: object = "-"
        else:
            identity = _identity(path)
            whole_files.check_target(path)
            if identity in read:
                raise ValueError(f"{option} {path} would replace {read[identity]}, which is read: give another file")
        if identity in written:
            raise ValueError(f"{written[identity]} and {option} both go to {path}: give one of them another file")
        written[identity] = option


def with_suffix(path: Path | None, suffix: str) -> Path | None:
    """
    :param path: of an output; ``None`` if there is none
    :param suffix: that it gets where it has none
    :return: the path that is written
    """
    return path if path is None or str(path) == "-" else whole_files.with_suffix(path, suffix)


def _identity(path: Path) -> object:
    """The same for all names of a file, whether it is there or not."""
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino
    except (OSError, ValueError):
        return os.path.normcase(os.path.realpath(path)) if "\0" not in str(path) else str(path)


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
        except (RecursionError, MemoryError) as error:
            raise click.BadParameter(f"the value of {name} is nested too deeply") from error
        except (ValueError, SyntaxError, TypeError):
            kwargs[name] = value
    return kwargs


def load_model(
    path: Path, env: VecEnv | None = None, device: str = "cpu", trusted: bool = False, content: bytes | None = None
) -> RepresentedPPO:
    """
    The one place where commands load models.

    :param path: file of a model, with or without ".zip"
    :param env: as for ``RepresentedPPO.load``
    :param device: of the model
    :param trusted: whether code in the file may run
    :param content: of the file, if it was read already
    :return: the model
    :raises FileNotFoundError: if there is no such file
    :raises ValueError: if it is no model, cannot be loaded, or does not fit the environment
    """
    from sb3_rmdp import RepresentedPPO

    check_is_file(path)
    source = path if content is None else _Named(content, path)
    with naming(path, "a model"):
        return RepresentedPPO.load(source, env=env, device=device, custom_objects=UNUSED_SCHEDULES, trusted=trusted)


class _Named(io.BytesIO):
    """Content of a file, whose name messages tell."""

    def __init__(self, content: bytes, path: Path):
        super().__init__(content)
        self.path = path

    def __str__(self) -> str:
        return str(self.path)


def check_is_file(path: Path) -> None:
    """
    :param path: of a model
    :raises ValueError: if it is none of a file
    """
    if not path.name:
        raise ValueError(f"MODEL '{path}' names no file: give the zip file of a model, e.g. best_model.zip")
    if path.is_dir() and not Path(f"{path}.zip").is_file():
        raise ValueError(f"{path} is a folder: give the zip file of a model, e.g. {path / 'best_model.zip'}")


def load_with_env(
    path: Path,
    env_id: str | None,
    env_kwargs: dict[str, Any],
    n_envs: int | None,
    seed: int,
    statistics: Path | None,
    device: str,
    trusted: bool = False,
) -> tuple[RepresentedPPO, VecEnv, RunFolder | None]:
    """
    :param path: file of the model
    :param env_id: id of the environment; that of the run folder by default, which is read only then
    :param env_kwargs: arguments of the environment, or those that differ from the run folder's
    :param n_envs: copies of it, k by default
    :param seed: its seed
    :param statistics: file of a VecNormalize
    :param device: of the model
    :param trusted: whether code in the model, the statistics and the run folder may run
    :return: the model, the environment, and the run folder if this decided what the environment is
    :raises ValueError: if something is wrong or does not fit together, like the next
    :raises FileNotFoundError: if there is no such model
    """
    from sb3_rmdp import RepresentedPPO
    from sb3_rmdp.common.files import read_model_data
    from sb3_rmdp.common.population import Population, check_same_population, population_of
    from sb3_rmdp.envs.registered import check_registered
    from sb3_rmdp.vec_env import make_represented_vec_env
    from sb3_rmdp.zoo.run_folder import find_run_folder, read_run_folder, with_statistics

    check_is_file(path)
    check_device(device)
    with naming(path, "a model"):
        data = read_model_data(path, ("k", "n_agents", "assignment_method"), RepresentedPPO.__name__)
        n_envs = n_envs or int(data["k"])
        agents = Population(data["n_agents"], data.get("population_id"), data.get("n_features"))
    folder = find_run_folder(path) if env_id is None else None
    run_folder = None if folder is None else read_run_folder(folder, trusted)
    if run_folder is not None:
        env = run_folder.make_env(env_kwargs, n_envs, seed, statistics)
    elif env_id is None:
        raise ValueError(
            f"{path} lies in no run folder that names its environment: add --env, e.g. --env rmdp/ResourceGathering-v0"
        )
    else:
        check_registered(env_id)
        env = make_represented_vec_env(env_id, n_envs, seed=seed, env_kwargs=env_kwargs)
        env = env if statistics is None else with_statistics(env, statistics, trusted)
    # Before spaces are compared: other agents often mean other observations, and are the better explanation
    check_same_population(agents, population_of(env))
    model = load_model(path, env, device, trusted)
    model.check_vec_normalize(env)
    return model, env, run_folder


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
