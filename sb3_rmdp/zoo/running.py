"""One of RL Zoo's scripts, within this process."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import gymnasium as gym
from rl_zoo3.utils import ALGOS

from sb3_rmdp.zoo.enjoying import enjoyable, split_command_line
from sb3_rmdp.zoo.experiment import RepresentedExperimentManager, StudyError
from sb3_rmdp.zoo.registration import ALGORITHMS, register
from sb3_rmdp.zoo.resuming import resumed_words
from sb3_rmdp.zoo.scripts import as_words

PLOTS = ("plot_train", "all_plots", "plot_from_file")
HUB = ("push_to_hub", "load_from_hub")

#: What says by itself what is wrong; of other errors the type is told as well
CLEAR = (
    AssertionError,
    AttributeError,
    ImportError,
    NameError,
    OSError,
    RuntimeError,
    StudyError,
    SyntaxError,
    TypeError,
    ValueError,
    gym.error.Error,
)


def run_script(script: str, words: list[str]) -> Path | None:
    """
    See :func:`sb3_rmdp.zoo.scripts.run`.

    :param script: name of the script
    :param words: its command line
    :return: folder of the run, after ``train``
    :raises SystemExit: with 2, after a message, if something is wrong before a training begins
    """
    register()
    RepresentedExperimentManager.latest = None
    RepresentedExperimentManager.resuming = False
    try:
        if script == "enjoy":
            words = _enjoy(words)
        if script == "train":
            words, RepresentedExperimentManager.resuming = resumed_words(words, as_words)
        if script in PLOTS:
            # They look for folders, which have no slashes in their names
            words = [word.replace("/", "-") if word in gym.registry else word for word in words]
        with _command_line(script, words):
            if script in PLOTS:
                getattr(importlib.import_module("rl_zoo3.plots"), script)()
            elif script in HUB:
                with importlib.import_module("sb3_rmdp.zoo.hub").mended_hub():
                    runpy.run_module(f"rl_zoo3.{script}", run_name="__main__")
            else:
                runpy.run_module(f"rl_zoo3.{script}", run_name="__main__")
    except Exception as error:  # files, configurations and environments of others may raise anything
        manager = RepresentedExperimentManager.latest
        # In the middle of a training, it is the place that tells; but for the disk, which is full, or gone
        if manager is not None and manager.learning and not isinstance(error, OSError):
            raise
        if script == "plot_from_file" and "empty" in str(error):
            error = ValueError(
                "the file has a single run of an environment, since all_plots leaves out those with fewer evaluations than "
                "others; plot_from_file needs two or more"
            )
        _fail(error, words)
    finally:
        register()  # where enjoy has put something else
    manager = RepresentedExperimentManager.latest
    return None if manager is None or not manager.learning else Path(manager.save_path)


def _enjoy(words: Sequence[str]) -> list[str]:
    """Let our algorithms end ``enjoy`` themselves."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--algo", default="ppo")
    algo = parser.parse_known_args(words)[0].algo
    if algo not in ALGORITHMS:
        return list(words)
    endless, n_timesteps, progress = split_command_line(words)
    ALGOS[algo] = enjoyable(ALGORITHMS[algo], n_timesteps, progress)
    return endless


def _fail(error: BaseException, words: Sequence[str]) -> NoReturn:
    """One line instead of a traceback, which ``--verbose 2`` shows."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--verbose", type=int, default=1)
    if parser.parse_known_args(words)[0].verbose > 1:
        traceback.print_exception(error)
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        message = f"no key {message}"
    elif not isinstance(error, CLEAR):
        message = f"{type(error).__name__}: {message}"
    elif isinstance(error, RecursionError):
        message = f"something on the command line or in a file is nested too deeply ({message})"
    elif isinstance(error, NameError) and RepresentedExperimentManager.latest is None:
        # RL Zoo evaluates what is given as name:value
        message += """: strings need quotes of their own, e.g. -params assignment:"'em'\""""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2) from error


@contextlib.contextmanager
def _command_line(script: str, words: Sequence[str]) -> Iterator[None]:
    """RL Zoo's scripts read the command line of the process, and write it down."""
    before = sys.argv, sys.orig_argv
    sys.argv = [f"python -m sb3_rmdp.zoo {script}", *words]
    sys.orig_argv = ["python", "-m", "sb3_rmdp.zoo", script, *words]
    try:
        yield
    finally:
        sys.argv, sys.orig_argv = before
