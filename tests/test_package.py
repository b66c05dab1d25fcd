"""The package as a whole: what it needs, what it holds, how much memory it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sb3_rmdp

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    """
    :param code: to run in a process of its own
    :return: what it printed
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importable_and_trainable_without_the_extras() -> None:
    missing = ["matplotlib", "tensorboard", "PIL", "rl_zoo3", "envpool", "mo_gymnasium", "sklearn", "pandas", "ray"]
    code = f"""
import sys
for name in {missing}:
    sys.modules[name] = None  # importing it raises ImportError
from sb3_rmdp import RepresentedPPO, evaluate_welfare
model = RepresentedPPO("MlpPolicy", "rmdp/ResourceGathering-v0", k=2, n_steps=64, device="cpu").learn(128)
print("trained", model.num_timesteps)
"""
    assert "trained 128" in run(code)


def test_hyperparameters_are_shipped(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    built = ["--build-base", str(tmp_path), "--build-lib", str(tmp_path / "lib")]
    command = [sys.executable, "setup.py", "--quiet", "build", *built]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shipped = tmp_path / "lib" / "sb3_rmdp" / "hyperparams" / "rppo.yml"
    assert shipped.read_text(encoding="utf-8") == (ROOT / "hyperparams" / "rppo.yml").read_text(encoding="utf-8")


def test_version_is_that_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## Release {sb3_rmdp.__version__}" in changelog


def test_a_thousand_agents_and_fifty_representatives_fit_into_four_gigabytes() -> None:
    """A whole update of 2048 steps of 50 envs: rewards and values alone are 2 x 391 MiB."""
    code = """
import resource
import numpy as np
import torch
from gymnasium import spaces
from sb3_rmdp import RepresentedPPO
from stable_baselines3.common.vec_env import VecEnv

torch.set_num_threads(2)

class Crowd(VecEnv):
    '''All environments at once: 50 copies in Python would take most of the test's time.'''

    def __init__(self, n_envs=50, n_agents=1000):
        super().__init__(n_envs, spaces.Box(-1, 1, (17,), np.float32), spaces.Box(-1, 1, (6,), np.float32))
        self.attributes = {"n_agents": n_agents, "population_id": None, "render_mode": None}
        self.rng = np.random.default_rng(0)
        self.time = 0

    def reset(self):
        return self.rng.random((self.num_envs, 17), dtype=np.float32)

    def step_async(self, actions):
        self.time += 1

    def step_wait(self):
        rewards = self.rng.random((self.num_envs, self.attributes["n_agents"]), dtype=np.float32)
        dones = np.full(self.num_envs, self.time % 1000 == 0)
        obs = self.reset()
        infos = [{"reward_vector": r, "TimeLimit.truncated": True, "terminal_observation": o} for r, o in zip(rewards, obs)]
        return obs, rewards.mean(axis=1), dones, infos

    def get_attr(self, name, indices=None):
        if name not in self.attributes:
            raise AttributeError(name)
        return [self.attributes[name]] * self.num_envs

    def close(self): ...
    def set_attr(self, name, value, indices=None): ...
    def env_method(self, name, *args, indices=None, **kwargs): ...
    def env_is_wrapped(self, wrapper_class, indices=None): return [False] * self.num_envs

RepresentedPPO("MlpPolicy", Crowd(), k=50, n_epochs=1, device="cpu", seed=0).learn(2048 * 50)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
    assert float(run(code)) < 4.0
