"""What new users come with, read from the files and names that a command was given."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sb3_rmdp.common.tables import read_columns, read_numbers
from sb3_rmdp.common.user_files import read_as
from sb3_rmdp.service.assign import Users
from sb3_rmdp.service.scores import Scores

#: What a file of weights should be, for messages
WEIGHTS = "table of weights, one row per user and one number per weight"


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
    :param path: file of numbers: an array of numpy, or text, see :mod:`sb3_rmdp.common.tables`
    :return: what is in it, (u, m) or (m,), finite
    :raises ValueError: if there is something else in it, with the line and the cell
    :raises OSError: if it cannot be read
    """
    return _read_array(path) if path.suffix.lower() == ".npy" else read_numbers(path, WEIGHTS)


def _read_array(path: Path) -> np.ndarray:
    with read_as(path, WEIGHTS):
        try:
            # Mapped: an array that is larger than its file is refused before it takes memory
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError:
            raise
        except Exception as error:  # of damaged headers numpy raises anything, as tokenize.TokenError
            raise ValueError(str(error) or type(error).__name__) from error
        kind = getattr(getattr(array, "dtype", None), "kind", "")
        if kind not in tuple("fiub") or array.ndim not in (1, 2) or not array.size:
            raise ValueError("it holds something else than one or two dimensions of real numbers")
        weights = np.array(array)
        if not np.isfinite(weights).all():
            place = tuple(np.argwhere(~np.isfinite(weights))[0].tolist())
            user, entry = (0, *place)[-2:]
            raise ValueError(f"weight {entry} of user {user} is {weights[place]}; weights must be finite")
    return weights


def read_scores(path: Path) -> Scores:
    """
    :param path: file with the columns representative, episode and score, see :mod:`sb3_rmdp.common.tables`
    :return: the scores
    :raises ValueError: if there is something else in it, with the line
    :raises OSError: if it cannot be read
    """
    scores: dict[tuple[int, int], float] = {}
    with read_as(path, "table of scores"):
        for row in read_columns(path, ("representative", "episode", "score")):
            j, episode = _episode(row.cells[0], row.line), _episode(row.cells[1], row.line)
            if (j, episode) in scores:
                raise ValueError(f"line {row.line} scores episode {episode} of representative {j} again; give it one score")
            scores[j, episode] = row[2]
        return Scores(list(scores.values()), episodes=np.array(list(scores), dtype=np.int64).reshape(-1, 2))


def _episode(text: str, line: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(f"line {line}: {text!r} numbers nothing; representatives and episodes are numbered from 0 on")
    return int(text)


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
