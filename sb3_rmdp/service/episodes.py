"""A stored set of evaluation episodes: what new users are judged by, in the place of a training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sb3_rmdp.common.npz_files import read_npz
from sb3_rmdp.common.whole_files import save_whole

if TYPE_CHECKING:
    from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm

#: Version of the file format. A file of another one is refused: what its numbers mean may have changed.
SCHEMA = 1

#: Name of observations that are no Dict
PLAIN = ""

#: Arrays of a file, and those of which there are several, one for each key
ARRAYS, GROUPS = ("facts", "returns", "lengths", "mean_square", "actions"), ("observations", "infos")

#: What the message about a file that cannot be used ends with
ANEW = "record the episodes anew, with record_episodes(model, env) or sb3-rmdp assign --env"


class Transitions(NamedTuple):
    """
    One episode of T steps.

    :param observations: before each step, (T, *observation shape), or a dict of such arrays
    :param actions: as the environment got them, (T, *action shape)
    :param next_observations: after each step, the terminal one included, as ``observations``
    :param infos: numbers that the infos of all steps have, (T,) each, by key
    """

    observations: np.ndarray | dict[str, np.ndarray]
    actions: np.ndarray
    next_observations: np.ndarray | dict[str, np.ndarray]
    infos: dict[str, np.ndarray]


@dataclass(frozen=True)
class Trajectories:
    """
    What was seen and done in all episodes, one after the other: those of representative 0, of representative 1, and so on.

    :param observations: by key of a Dict space, or under ``""`` otherwise: (steps + episodes, *shape), since an episode of T
        steps has T + 1 of them
    :param actions: (steps, *action shape)
    :param infos: numbers that the infos of all steps have, by key, (steps,)
    """

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    infos: dict[str, np.ndarray]


@dataclass(frozen=True)
class Origin:
    """
    Where episodes come from.

    :param policy: fingerprint of the policies that acted, see :func:`policy_fingerprint`
    :param n_agents: number of agents that the model was trained for
    :param population_id: who they are; ``None`` if the environment does not tell
    :param n_features: number of reward features; ``None`` if every agent has a reward of its own
    :param env_id: id of the environment, if it was made by ``gymnasium.make``
    :param deterministic: whether actions were the likeliest ones
    :param seed: of the recording; ``None`` if nothing was seeded
    """

    policy: str
    n_agents: int
    population_id: str | None = None
    n_features: int | None = None
    env_id: str | None = None
    deterministic: bool = True
    seed: int | None = None

    def __post_init__(self) -> None:
        texts, integers = ("policy", "population_id", "env_id"), ("n_agents", "n_features", "seed")
        for name, value in vars(self).items():
            kind = str if name in texts else Integral if name in integers else bool
            wrong = not isinstance(value, kind) or (kind is Integral and isinstance(value, bool))
            if wrong and (value is not None or name in ("policy", "n_agents", "deterministic")):
                raise ValueError(f"{name}={value!r} of the origin: give {'int' if kind is Integral else kind.__name__}")
        if self.n_agents < 1 or (self.n_features is not None and self.n_features < 1):
            raise ValueError(f"n_agents={self.n_agents} and n_features={self.n_features} of the origin: give 1 or more")


@dataclass(frozen=True)
class EvaluationEpisodes:
    """
    Equally many episodes of every representative; made by :func:`record_episodes`.

    :param returns: what each episode paid every agent known in training, or every reward feature if rewards are factored;
        undiscounted, float32 (k, n_episodes, size), finite, with at least 2 episodes
    :param lengths: steps of each episode, int64 (k, n_episodes)
    :param origin: where they come from
    :param mean_square: mean over the agents known in training of the outer product of their weights, (size, size), of factored
        rewards; ``None`` if every agent has a reward of its own
    :param trajectories: what was seen and done; ``None`` if only returns were kept
    :raises ValueError: if shapes do not fit together, a number is not finite, or there is only one episode
    """

    returns: np.ndarray
    lengths: np.ndarray
    origin: Origin
    mean_square: np.ndarray | None = None
    trajectories: Trajectories | None = None

    def __post_init__(self) -> None:
        size = self.origin.n_features or self.origin.n_agents
        shape = self.returns.shape
        if self.returns.dtype.kind != "f" or self.lengths.dtype.kind not in "iu":
            raise ValueError(f"returns are {self.returns.dtype}, lengths {self.lengths.dtype}: give floats and integers")
        if len(shape) != 3 or shape[2] != size or shape[0] < 1:
            raise ValueError(f"returns have shape {shape}: give (k, n_episodes, {size})")
        if shape[1] < 2:
            raise ValueError("a single episode per representative tells nothing about the error of its return: give 2 or more")
        if not np.isfinite(self.returns).all():
            j, e, _ = np.argwhere(~np.isfinite(self.returns))[0]
            raise ValueError(f"the returns of episode {e} of representative {j} are not finite")
        if self.lengths.shape != shape[:2] or (self.lengths < 1).any():
            raise ValueError(f"lengths must be positive integers of shape {shape[:2]}, not {self.lengths.shape}")
        if self.mean_square is not None and self.mean_square.shape != (size, size):
            raise ValueError(f"mean_square has shape {self.mean_square.shape}: give ({size}, {size})")
        if self.mean_square is not None and not (self.mean_square.dtype.kind == "f" and np.isfinite(self.mean_square).all()):
            raise ValueError("mean_square is not of finite floats")
        if self.trajectories is not None:
            steps = int(self.lengths.sum())
            if not all(map(np.ndim, (*self.trajectories.observations.values(), self.trajectories.actions))):
                raise ValueError("observations or actions are single numbers: give one per step")
            seen = {len(array) for array in self.trajectories.observations.values()}
            done = {len(array) for array in (self.trajectories.actions, *self.trajectories.infos.values())}
            if seen != {steps + self.lengths.size} or done != {steps}:
                raise ValueError(f"trajectories do not have the {steps} steps that lengths tell of")

    @property
    def k(self) -> int:
        """Number of representatives."""
        return self.returns.shape[0]

    @property
    def n_episodes(self) -> int:
        """Episodes per representative."""
        return self.returns.shape[1]

    @property
    def size(self) -> int:
        """Number of reward features or, if rewards are not factored, of agents known in training."""
        return self.returns.shape[2]

    @property
    def factored(self) -> bool:
        """Whether rewards are factored."""
        return self.origin.n_features is not None

    def __str__(self) -> str:
        what = f"{self.size} reward features" if self.factored else f"{self.size} agents"
        kept = "with" if self.trajectories is not None else "without"
        return f"{self.n_episodes} episodes of each of {self.k} representatives, scored by {what}, {kept} trajectories"

    @cached_property
    def _starts(self) -> np.ndarray:
        """First step of each episode in the trajectories, (k, n_episodes)."""
        ends = np.cumsum(self.lengths.ravel())
        return (ends - self.lengths.ravel()).reshape(self.lengths.shape)

    def transitions(self, representative: int, episode: int) -> Transitions:
        """
        :param representative: who acted, 0 to k - 1
        :param episode: which of its episodes, 0 to n_episodes - 1
        :return: what was seen and done
        :raises ValueError: if there is no such episode, or trajectories were not kept
        """
        if self.trajectories is None:
            raise ValueError(
                "these episodes were recorded without trajectories, so there is nothing to call a reward function on or to "
                "look at: record them with trajectories=True"
            )
        self.check_episodes(np.array([[representative, episode]]))
        start, length = int(self._starts[representative, episode]), int(self.lengths[representative, episode])
        # Every episode before this one has an observation more than steps
        first = start + representative * self.n_episodes + episode
        before = {key: array[first : first + length] for key, array in self.trajectories.observations.items()}
        after = {key: array[first + 1 : first + length + 1] for key, array in self.trajectories.observations.items()}
        steps = slice(start, start + length)
        infos = {key: array[steps] for key, array in self.trajectories.infos.items()}
        return Transitions(before.get(PLAIN, before), self.trajectories.actions[steps], after.get(PLAIN, after), infos)

    def check_episodes(self, episodes: np.ndarray) -> None:
        """
        :param episodes: representative and number of some episodes, int (s, 2)
        :raises ValueError: if there is one that does not exist
        """
        wrong = ((episodes < 0) | (episodes >= (self.k, self.n_episodes))).any(axis=1)
        if wrong.any():
            j, e = episodes[wrong][0]
            raise ValueError(
                f"there is no episode {e} of representative {j}: representatives are numbered 0 to {self.k - 1}, their "
                f"episodes 0 to {self.n_episodes - 1}"
            )

    def check_model(self, model: RepresentedOnPolicyAlgorithm) -> None:
        """
        :param model: a model
        :raises ValueError: if the episodes are not its own
        """
        mine, origin = model.population, self.origin
        theirs = (origin.n_agents, origin.population_id, origin.n_features)
        if tuple(mine) != theirs or model.k != self.k or policy_fingerprint(model) != origin.policy:
            raise ValueError(
                f"the episodes were recorded with another model ({self.k} representatives for {origin.n_agents} agents, "
                f"policy {origin.policy}; this one: {model.k} for {model.n_agents}, {policy_fingerprint(model)}): {ANEW}"
            )

    def save(self, path: str | Path) -> Path:
        """
        :param path: file, written whole or not at all; ".npz" is added where there is no suffix, missing folders are made
        :return: the file
        """
        arrays = {"returns": self.returns, "lengths": self.lengths}
        if self.mean_square is not None:
            arrays["mean_square"] = self.mean_square
        if self.trajectories is not None:
            arrays["actions"] = self.trajectories.actions
            arrays.update({f"observations/{key}": array for key, array in self.trajectories.observations.items()})
            arrays.update({f"infos/{key}": array for key, array in self.trajectories.infos.items()})
        facts = json.dumps({"schema": SCHEMA, "origin": asdict(self.origin)})
        # As bytes: text that numpy would have to unpickle is not read
        arrays["facts"] = np.frombuffer(facts.encode(), dtype=np.uint8)
        return save_whole(path, lambda file: np.savez_compressed(file, **arrays), ".npz")  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> EvaluationEpisodes:
        """
        :param path: a file that :meth:`save` wrote
        :return: the episodes
        :raises FileNotFoundError: if there is no such file
        :raises ValueError: if it is broken, holds something else, or was written by another version
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file of episodes {path}")
        try:
            arrays = read_npz(path, _is_known)
            facts: dict[str, Any] = json.loads(arrays.pop("facts").tobytes())
            schema = facts["schema"]
            if schema == SCHEMA:
                return cls._of_arrays(arrays, Origin(**facts["origin"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            said = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} is no complete file of evaluation episodes ({said}): {ANEW}") from error
        raise ValueError(f"{path} was written in format {schema}, this version reads {SCHEMA}: {ANEW}")

    @classmethod
    def _of_arrays(cls, arrays: dict[str, np.ndarray], origin: Origin) -> EvaluationEpisodes:
        groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in GROUPS}
        for name, array in arrays.items():
            group, slash, key = name.partition("/")
            if slash:
                groups[group][key] = array
        trajectories = Trajectories(actions=arrays["actions"], **groups) if "actions" in arrays else None
        return cls(arrays["returns"], arrays["lengths"], origin, arrays.get("mean_square"), trajectories)


def _is_known(name: str) -> bool:
    """Whether an array of this name belongs to a file of episodes."""
    return name in ARRAYS or name.startswith(tuple(f"{group}/" for group in GROUPS))


def policy_fingerprint(model: RepresentedOnPolicyAlgorithm) -> str:
    """
    :param model: a model
    :return: 16 hexadecimal digits of SHA-256 that change with any number of its policies, and with nothing else
    """
    digest = hashlib.sha256(f"{type(model.policy).__name__} {model.k}".encode())
    for name, tensor in model.policy.state_dict().items():
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
