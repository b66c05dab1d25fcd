"""Where tuned hyperparameters are, and what their entries mean. RL Zoo itself is not needed for that."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stable_baselines3.common.utils import LinearSchedule
from torch import nn

#: What RL Zoo sets itself
NOT_KEYS = ("self", "env", "tensorboard_log", "seed", "verbose", "device", "_init_setup_model")

#: Arguments that may be schedules
SCHEDULES = ("learning_rate", "clip_range", "clip_range_vf", "ent_coef")


#: Time limit of the training, in steps, beyond which values go on; evaluations have the environment's, as it has with 0
MAX_EPISODE_STEPS = "max_episode_steps"


def training_kwargs(env_kwargs: Mapping[str, Any], limit: Any) -> dict[str, Any]:
    """
    :param env_kwargs: arguments of the environment in evaluations
    :param limit: :data:`MAX_EPISODE_STEPS` as it is written; ``None`` if it is not
    :return: its arguments in the training: the shorter of two time limits holds
    :raises ValueError: if the limit is no whole number of at least 0
    """
    steps = _number(str(limit or 0))
    if isinstance(limit, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"{MAX_EPISODE_STEPS}={limit!r}: choose a number of steps, or 0 for the environment's own time limit")
    own = env_kwargs.get(MAX_EPISODE_STEPS)
    return {**env_kwargs, **({} if steps == 0 or (own is not None and own < steps) else {MAX_EPISODE_STEPS: steps})}


def default_config(algo: str) -> Path:
    """
    :param algo: one of :data:`ALGORITHMS`
    :return: the file with its tuned hyperparameters: within the package where it was installed, beside it in a checkout
    """
    package = Path(__file__).parents[1]
    installed = package / "hyperparams" / f"{algo}.yml"
    return installed if installed.exists() else package.parent / "hyperparams" / f"{algo}.yml"


def linear_schedule(name: str, text: str) -> LinearSchedule:
    """
    :param name: the argument, for the message
    :param text: ``lin_START`` or ``lin_START_END``; the end is 0 by default
    :return: schedule from the start to the end of the training
    :raises ValueError: if it is neither
    """
    kind, *numbers = text.split("_")
    try:
        start, *end = map(float, numbers)
        (stop,) = end or (0.0,)
    except ValueError:
        kind = ""
    if kind != "lin":
        raise ValueError(f"{name}: {text!r} is no schedule: write a number, lin_3e-4 or lin_3e-4_1e-4")
    return LinearSchedule(start, stop, 1.0)


def as_arguments(hyperparams: dict[str, Any]) -> dict[str, Any]:
    """
    Read entries as RL Zoo does, which evaluates more than is evaluated here.

    :param hyperparams: arguments of the algorithm as they are written: schedules as ``lin_3e-4_1e-4``, ``policy_kwargs`` as
        ``dict(...)``, and numbers such as ``3e-4``, which yaml takes for strings
    :return: the same as the algorithm takes them
    :raises ValueError: if one cannot be read
    """
    arguments = {}
    for name, value in hyperparams.items():
        if isinstance(value, str):
            number = _number(value)
            if number is not None:
                value = number
            elif name in SCHEDULES:
                value = linear_schedule(name, value)
            elif name.endswith("_kwargs"):
                value = _evaluate(name, value)
        arguments[name] = value
    return arguments


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else number


def _evaluate(name: str, text: str) -> Any:
    """Literals, ``dict(...)`` of them, and classes of ``torch.nn``: all that such arguments are usually made of."""

    def value_of(node: ast.expr) -> Any:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
            return {str(keyword.arg): value_of(keyword.value) for keyword in node.keywords}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nn":
            return getattr(nn, node.attr)
        if isinstance(node, ast.Dict) and None not in node.keys:
            return {value_of(key): value_of(value) for key, value in zip(node.keys, node.values, strict=True) if key}
        if isinstance(node, (ast.List, ast.Tuple)):
            values = [value_of(element) for element in node.elts]
            return values if isinstance(node, ast.List) else tuple(values)
        return ast.literal_eval(node)

    try:
        return value_of(ast.parse(text.strip(), mode="eval").body)
    except (ValueError, SyntaxError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{name}: {text!r} cannot be read: write a mapping, or dict(...) of literals and classes such as nn.ReLU"
        ) from error
