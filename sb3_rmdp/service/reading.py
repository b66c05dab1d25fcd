"""What new users come with, read from the files and names that a command was given."""

from __future__ import annotations

import csv
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sb3_rmdp.service.assign import Users
from sb3_rmdp.service.scores import Scores


def read_users(weights: Path | None, reward: str | None, scores: Path | None) -> Users:
    """
    :param weights: file of weights
    :param reward: module and name of a function
    :param scores: file of scores
    :return: what new users come with
    :raises ValueError: unless there is exactly one of them, and it can be read
    """
    if sum(given is not None for given in (weights, reward, scores)) != 1:
        raise ValueError("say what new users come with: exactly one of --weights, --reward and --scores")
    if weights is not None:
        return read_weights(weights)
    return read_scores(scores) if scores is not None else find_function(str(reward))


def read_weights(path: Path) -> np.ndarray:
    """
    :param path: file of numbers, .npy or .csv, of which the first line may be names
    :return: what is in it, (u, m) or (m,)
    :raises ValueError: if there is something else in it
    """
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        with path.open(encoding="utf-8") as file:
            names = next(csv.reader(file), [])
        return np.loadtxt(path, delimiter=",", ndmin=2, skiprows=int(not all(map(_is_number, names))))
    except (ValueError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table of weights, one row per user and one number per weight: {error}") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_scores(path: Path) -> Scores:
    """
    :param path: file with the columns representative, episode and score
    :return: the scores
    :raises ValueError: if there is something else in it
    """
    wanted = ("representative", "episode", "score")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in wanted if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]}: begin it with the line {','.join(wanted)}")
        chosen, values = [], []
        for row in reader:
            try:
                chosen.append((int(row["representative"]), int(row["episode"])))
                values.append(float(row["score"]))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}; give two integers and a number") from error
    return Scores(values, episodes=chosen)


def find_function(name: str) -> Any:
    """
    :param name: ``module:function``; modules are looked for where the command is called, too
    :return: the function
    :raises ValueError: if there is none
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ValueError(f"--reward {name!r} names no function: give module:function, e.g. my_rewards:hurried")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:
        raise ValueError(f"--reward {name}: importing {module} failed: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ValueError(f"--reward {name}: {module} has no function {attribute}")
    return found
