"""Environments in which trainings go wrong in a known way."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

#: Seconds after which a training that nobody let go on ends by itself
FOREVER = 120.0


class OddError(Exception):
    """Has more arguments than it is made with when it is unpickled."""

    def __init__(self, which: str, what: str):
        super().__init__(f"the {which} {what} is odd")


class Eventful(gym.Env):
    """
    Agents who like different actions, and something that happens at the tenth step of the first episode.

    :param event: "nothing"; "wait" until there is a file ``go`` in the folder, having written the id of the process into one
        named ``waiting``; "raise" an error; "raise once", if no file ``raised`` is in the folder yet; "raise oddly" one that
        cannot be sent to another process
    :param folder: for files
    :param n_agents: number of agents
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (as in gymnasium.Env)
    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, event: str = "nothing", folder: str = ".", n_agents: int = 3):
        self.event, self.folder, self.n_agents, self.n_steps = event, Path(folder), n_agents, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.random(1, dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        if self.n_steps == 10:
            self._happen()
        vector = np.float32(np.arange(self.n_agents) % 3 == action)
        obs = self.np_random.random(1, dtype=np.float32)
        return obs, float(vector.mean()), self.n_steps % 20 == 0, False, {"reward_vector": vector}

    def _happen(self) -> None:
        if self.event == "raise" or (self.event == "raise once" and not (self.folder / "raised").exists()):
            (self.folder / "raised").touch()
            raise RuntimeError("the tenth step\nis one too many")
        if self.event == "raise oddly":
            raise OddError("tenth", "step")
        if self.event == "wait":
            end = time.monotonic() + FOREVER
            while not (self.folder / "go").exists() and time.monotonic() < end:
                write(self.folder / "waiting", str(os.getpid()))
                time.sleep(0.05)


def write(path: Path, text: str) -> None:
    """Write a file that is never seen without its content."""
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


class Thermometer(gym.Env):
    """An environment without agents."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(3)


for _name, _class in {"Eventful-v0": Eventful, "Thermometer-v0": Thermometer}.items():
    if _name not in gym.registry:
        gym.register(_name, entry_point=_class)
