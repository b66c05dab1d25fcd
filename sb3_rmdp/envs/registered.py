"""Whether there is an environment of a name."""

import difflib
import importlib

import gymnasium as gym


def check_registered(env_id: str) -> None:
    """
    :param env_id: id of an environment, or ``module:id``, for which the module is imported
    :raises ValueError: if it is not registered; names those that are most like it
    :raises ImportError: if the module cannot be imported
    """
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError:
            raise
        except Exception as error:  # modules of others may raise anything
            raise ImportError(f"importing {module} failed: {type(error).__name__}: {error}") from error
    if name not in gym.registry:
        similar = difflib.get_close_matches(name, gym.registry, n=3, cutoff=0.5)
        known = f"did you mean {' or '.join(similar)}?" if similar else "nothing registered is like it;"
        raise ValueError(
            f"environment {name!r} is not registered: {known} One of your own needs its module in front, module:id"
        )
