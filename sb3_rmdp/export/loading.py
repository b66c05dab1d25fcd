"""Exported representatives, verified and ready to act."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.preprocessing import maybe_transpose
from stable_baselines3.common.utils import is_vectorized_observation

from sb3_rmdp.common.finite import check_finite_observation
from sb3_rmdp.common.normalization import WHOLE
from sb3_rmdp.common.population import check_agent
from sb3_rmdp.common.serving import of_one_call
from sb3_rmdp.common.spaces import space_from_json
from sb3_rmdp.export.graph import RUNNER, check_installed, open_session, run_session
from sb3_rmdp.export.manifest import read_assignment, read_listed, verify
from sb3_rmdp.export.normalization import parts

#: What can act
BACKENDS = ("onnx", "sb3")


def load_exported(
    folder: str | Path, backend: str = "onnx", digest: str | None = None, public_key: str | Path | None = None
) -> Exported:
    """
    Verify an export and open it.

    ONNX files hold numbers and what is done to them. The zip files of SB3 are pickled: with ``backend="sb3"`` whatever code is
    in them runs, so that it must be asked for, and only of an export whose origin is known by ``digest`` or ``public_key``.

    :param folder: written by :func:`~sb3_rmdp.export.export`
    :param backend: "onnx" runs ONNX files with onnxruntime, "sb3" unpickles the zip files and runs them with SB3
    :param digest: hash of the manifest that it must have, see :func:`~sb3_rmdp.export.verify`
    :param public_key: PEM file of the key that it must be signed with, see :func:`~sb3_rmdp.export.verify`
    :return: the export
    :raises FileNotFoundError: if there is no such folder or key
    :raises ValueError: if a byte was changed, a file is missing or was added, it is not signed with this key, or it was not
        written for this backend
    :raises ImportError: if onnxruntime or cryptography is needed and not installed
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend={backend!r}: choose {' or '.join(map(repr, BACKENDS))}")
    manifest = verify(folder, digest, public_key)
    written = list(manifest["representatives"][0]["files"])
    if backend not in written:
        raise ValueError(
            f"backend={backend!r}: {folder} has files for {' and '.join(written)} only. Export it with ONNX, or pass "
            'backend="sb3" if you trust its origin: that unpickles its zip files, and code in them runs'
        )
    if backend == "onnx":
        check_installed(RUNNER)
    return Exported(Path(folder), manifest, backend)


class Exported:
    """
    Representatives of an export, and who is served by which; made by :func:`load_exported`.

    Files are opened when they are needed, and their hashes are compared again then. Threads may act at the same time.

    :param folder: of the export
    :param manifest: content of its manifest
    :param backend: "onnx" or "sb3"
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], backend: str):
        self.folder = folder
        self.manifest = manifest
        self.backend = backend
        self.observation_space = space_from_json(manifest["observation_space"])
        self.action_space = space_from_json(manifest["action_space"])
        self.k = len(manifest["representatives"])
        #: Representative of each agent, int64 (n_agents,)
        self.assignment = read_assignment(folder, manifest)
        self._opened: dict[int, ExportedRepresentative] = {}

    @property
    def n_agents(self) -> int:
        """Number of agents."""
        return len(self.assignment)

    def representative_of(self, agent: int) -> int:
        """
        :param agent: 0 to n_agents - 1
        :return: the representative that serves the agent
        :raises ValueError: if there is no such agent
        """
        check_agent(agent, self.n_agents)
        return int(self.assignment[agent])

    def representative(self, index: int) -> ExportedRepresentative:
        """
        :param index: which one, 0 to k - 1
        :return: an object with ``predict``, for ``evaluate_policy`` and for service
        :raises ValueError: if there is no such representative, or its file was changed meanwhile
        """
        if not 0 <= index < self.k:
            raise ValueError(f"representative {index}: with k={self.k} representatives are numbered 0 to {self.k - 1}")
        if index not in self._opened:
            self._opened[index] = ExportedRepresentative(self, index)
        return self._opened[index]

    def predict(
        self, observation: np.ndarray | dict[str, np.ndarray], agent: int, deterministic: bool = True
    ) -> tuple[np.ndarray, None]:
        """
        Act for an agent.

        :param observation: one raw observation or a batch of them
        :param agent: 0 to n_agents - 1
        :param deterministic: take the mode; samples need ``backend="sb3"``
        :return: actions, and ``None`` in the place of a state
        :raises ValueError: if there is no such agent, or observations are of another shape
        """
        return self.representative(self.representative_of(agent)).predict(observation, deterministic=deterministic)


class ExportedRepresentative:
    """
    Acts as one representative of an export; takes the place of a model in SB3's ``evaluate_policy``.

    :param exported: the export
    :param index: which of its representatives
    :raises ValueError: if its file was changed
    """

    def __init__(self, exported: Exported, index: int):
        self.index = index
        self.observation_space = exported.observation_space
        entry = exported.manifest["representatives"][index]["files"][exported.backend]
        content = read_listed(exported.folder, entry)
        path = exported.folder / entry["name"]
        #: Indices of the agents it serves, int64
        self.agents = np.flatnonzero(exported.assignment == index)
        self.ppo: PPO | None = None
        self._act: Callable[[Any], np.ndarray] | None = None
        try:
            if exported.backend == "sb3":
                self.ppo = PPO.load(io.BytesIO(content), device="cpu")
            else:
                self._act = partial(run_session, open_session(content), self.observation_space)
        except Exception as error:  # onnxruntime and unpickling may raise anything
            raise ValueError(f"{path} cannot be opened ({type(error).__name__}: {error}): export anew") from error

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, None]:
        """
        :param observation: one raw observation or a batch of them
        :param state: not needed, as the next
        :param episode_start:
        :param deterministic: take the mode; samples need ``backend="sb3"``
        :return: actions, and ``None`` in the place of a state
        :raises ValueError: if observations are of another shape or not finite, or a sample is asked of ONNX
        """
        check_finite_observation(observation)
        if self.ppo is not None:
            return of_one_call(self.ppo.policy).predict(observation, deterministic=deterministic)[0], None
        if not deterministic:
            raise ValueError('deterministic=False: ONNX files give the likeliest action; for samples load with backend="sb3"')
        assert self._act is not None
        batch, several = self._batch(observation)
        actions = self._act(batch)
        return (actions if several else actions[0]), None

    def _batch(self, observation: Any) -> tuple[Any, bool]:
        """Observations as a batch with images as the networks take them, and whether there were several."""
        if isinstance(self.observation_space, spaces.Dict) != isinstance(observation, dict):
            raise ValueError(f"{type(observation).__name__} is no observation of {self.observation_space}")
        several = False
        batch: dict[str, np.ndarray] = {}
        for key, part in parts(self.observation_space).items():
            if key != WHOLE and key not in observation:
                raise ValueError(f"the observation has no {key!r}: give all of {list(parts(self.observation_space))}")
            value = maybe_transpose(np.asarray(observation if key == WHOLE else observation[key]), part)
            several = is_vectorized_observation(value, part)
            batch[key] = value if several else value[None]
        return batch.get(WHOLE, batch), several
