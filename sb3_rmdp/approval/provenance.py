"""What was trained: the file, the environment, the settings, and the versions of all that took part."""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.common.files import model_file
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.population import normalizes_observations, population_of

PACKAGES = ("sb3_rmdp", "stable-baselines3", "gymnasium", "mujoco", "torch", "numpy")
#: Names of the same in the system_info.txt of SB3's zip files
SAVED_NAMES = {
    "Python": "Python",
    "Stable-Baselines3": "stable-baselines3",
    "Gymnasium": "gymnasium",
    "PyTorch": "torch",
    "Numpy": "numpy",
    "OS": "operating system",
}
#: Arguments of the algorithm that have a line of their own, or say nothing about the training
NO_HYPERPARAMETERS = frozenset(
    {
        "self", "policy", "env", "k", "assignment", "assignment_kwargs", "welfare", "welfare_kwargs", "seed", "device",
        "verbose", "tensorboard_log", "stats_window_size", "_init_setup_model",
    }
)  # fmt: skip


@dataclass(frozen=True)
class ModelFile:
    """
    The zip file of a model, so that nobody can take another for it.

    :param name: its name, without folders
    :param size: bytes
    :param sha256: of its content, hexadecimal
    :param saved_with: versions with which it was saved, by name; empty if it does not tell
    """

    name: str
    size: int
    sha256: str
    saved_with: dict[str, str]


@dataclass(frozen=True)
class Provenance:
    """
    What was trained, and with what it was evaluated.

    :param date: of the report
    :param file: the model's; ``None`` if it came from no file
    :param algorithm: name of its class
    :param env_id: gymnasium id of the environment, or the name of its class
    :param env_kwargs: arguments of the environment, as far as it tells them
    :param observation_space: of the environment, as text
    :param action_space: of the environment, as text
    :param normalized: whether a VecNormalize changes the observations
    :param n_agents: number of agents
    :param n_features: number of reward features; ``None`` if every agent has a reward of its own
    :param population_id: fingerprint of who the agents are; ``None`` if the environment does not tell
    :param k: number of representatives
    :param assignment: how agents found their representative
    :param assignment_kwargs: its arguments
    :param welfare: what policies ascended together
    :param welfare_kwargs: its arguments
    :param timesteps: transitions of the training, of all representatives together
    :param seed: of the training
    :param hyperparameters: arguments of the algorithm, by name
    :param versions: of the packages with which the report was written
    """

    date: datetime
    file: ModelFile | None
    algorithm: str
    env_id: str
    env_kwargs: dict[str, Any]
    observation_space: str
    action_space: str
    normalized: bool
    n_agents: int
    n_features: int | None
    population_id: str | None
    k: int
    assignment: str
    assignment_kwargs: dict[str, Any]
    welfare: str
    welfare_kwargs: dict[str, Any]
    timesteps: int
    seed: int | None
    hyperparameters: dict[str, str]
    versions: dict[str, str]


def provenance(
    model: RepresentedOnPolicyAlgorithm, env: VecEnv, path: str | Path | None = None, date: datetime | None = None
) -> Provenance:
    """
    :param model: the model
    :param env: the environment that it is evaluated in
    :param path: file that the model was loaded from
    :param date: of the report, now by default
    :return: the facts
    :raises FileNotFoundError: if there is no such file
    """
    population, spec = population_of(env), spec_of(env)
    method, welfare = model.assignment_method, getattr(model, "welfare_method", "utilitarian")
    # The file knows schedules that were replaced on loading
    saved = {} if path is None else _saved_attributes(model_file(path))
    names = [name for name in inspect.signature(type(model).__init__).parameters if name not in NO_HYPERPARAMETERS]
    had = {name: getattr(model, name, None) for name in names}
    # Of a class a file has all methods, and no name
    known = {name: value if isinstance(value, type) else saved.get(name, value) for name, value in had.items()}
    base = env.get_attr("unwrapped", indices=0)[0]
    return Provenance(
        date=date or datetime.now(timezone.utc),
        file=None if path is None else _read_file(model_file(path), saved.get("sb3_rmdp_version")),
        algorithm=type(model).__name__,
        env_id=type(base).__name__ if spec is None else spec.id,
        env_kwargs={} if spec is None else {name: value for name, value in spec.kwargs.items() if name != "render_mode"},
        observation_space=str(env.observation_space),
        action_space=str(env.action_space),
        normalized=normalizes_observations(env),
        n_agents=population.n_agents,
        n_features=population.n_features,
        population_id=population.population_id,
        k=model.k,
        assignment=method if isinstance(method, str) else method.__name__,
        assignment_kwargs=dict(model.assignment_kwargs or {}),
        welfare=welfare if isinstance(welfare, str) else str(welfare),
        welfare_kwargs=dict(getattr(model, "welfare_kwargs", None) or {}),
        timesteps=int(model.num_timesteps),
        seed=model.seed,
        hyperparameters={name: _told(value) for name, value in known.items() if value is not None},
        versions={"Python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    )


def spec_of(env: VecEnv) -> EnvSpec | None:
    """
    :param env: any vec env
    :return: how its environments are made by gymnasium; ``None`` if they do not tell
    """
    try:
        spec = env.get_attr("spec", indices=0)[0]
    except Exception:  # wrappers of the user's may not say what they were made with
        return None
    return spec if isinstance(spec, EnvSpec) else None


def _read_file(path: Path, own_version: str | None) -> ModelFile:
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        text = archive.read("system_info.txt").decode() if "system_info.txt" in archive.namelist() else ""
    lines = (line.removeprefix("- ").partition(": ") for line in text.splitlines())
    saved_with = {SAVED_NAMES[name]: value.strip() for name, _, value in lines if name in SAVED_NAMES}
    if own_version is not None:
        saved_with["sb3_rmdp"] = own_version
    return ModelFile(path.name, len(content), hashlib.sha256(content).hexdigest(), saved_with)


def _saved_attributes(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("data"))


def _told(value: Any) -> str:
    """
    >>> _told(0.5), _told({"a": 1}), _told(max), _told(int)
    ('0.5', "{'a': 1}", 'function max', 'int')
    >>> _told({":type:": "<class 'x.Linear'>", ":serialized:": "gA", "start": "0.1"})
    'Linear(start=0.1)'

    A value as text; of an object that a zip file holds, its class and what SB3 has written down beside the pickle.
    """
    if isinstance(value, Mapping) and ":serialized:" in value:
        kind = str(value.get(":type:", "object")).removeprefix("<class '").removesuffix("'>").rpartition(".")[2]
        parts = ", ".join(f"{name}={part}" for name, part in value.items() if not name.startswith((":", "_")))
        return f"{kind}({parts})"
    if inspect.isroutine(value):
        return f"function {value.__name__}"
    if isinstance(value, type):
        return value.__name__
    return str(value)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
