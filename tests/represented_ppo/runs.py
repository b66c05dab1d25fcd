"""
Trainings that are broken off, and go on in another process: ``python -m tests.represented_ppo.runs folder`` does so with all.

A run is trained without a break first, and writes checkpoints on its way. What it logs and ends with is packed into files
beside them, and so is what the others do that go on from the checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecMonitor, VecNormalize

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.assignment import ASSIGNMENTS
from sb3_rmdp.common.callbacks import AnnealCallback, KeepBestCallback, WelfareEvalCallback
from sb3_rmdp.common.packing import pack
from sb3_rmdp.common.random_numbers import random_state
from sb3_rmdp.envs import VectorReward
from sb3_rmdp.vec_env import make_represented_vec_env
from sb3_rmdp.vec_env.states import vec_env_state

GRID, CHEETAH = "rmdp/ResourceGathering-v0", "rmdp/HalfCheetahVelocity-v0"
#: What clocks say
CLOCKS = ("time/fps", "time/time_elapsed")
N_ROLLOUTS, HALF = 6, 3
#: Small enough for episodes to run on from one rollout to the next, in every environment
N_STEPS = 20

ASSIGNMENT_KWARGS: dict[str, dict[str, Any]] = {
    "em": dict(warm_start=2, mixing=0.3),
    "end_to_end": dict(learning_rate=0.05),
    "episodes": dict(warm_start=1, move_cost=0.0, stagnation=1, archive_size=20),
    "fixed": dict(representatives=[i % 3 for i in range(25)]),
    "clustering": dict(universal_fraction=0.6),
}


@dataclass
class Run:
    """
    A training.

    :param make_env: makes its environments, the same in every process
    :param assignment: name of the assignment
    :param kwargs: arguments of the model that differ from those of the others
    :param callbacks: makes callbacks, given a folder to write to
    :param log_interval: as in ``learn``
    """

    make_env: Callable[[], VecEnv]
    assignment: str = "em"
    kwargs: dict[str, Any] = field(default_factory=dict)
    callbacks: Callable[[Path], list[BaseCallback]] = lambda folder: []
    log_interval: int = 1


def grid(n_envs: int = 3, vec_env_cls: Any = None) -> VecEnv:
    return make_represented_vec_env(GRID, 3, n_envs=n_envs, seed=5, vec_env_cls=vec_env_cls)


def cheetah(n_envs: int = 3, vec_env_cls: Any = None, **kwargs: Any) -> VecEnv:
    env_kwargs = dict(n_agents=25, max_episode_steps=40) | kwargs
    return make_represented_vec_env(CHEETAH, 3, n_envs=n_envs, seed=5, env_kwargs=env_kwargs, vec_env_cls=vec_env_cls)


def robot(name: str) -> Callable[[], VecEnv]:
    kwargs: dict[str, Any] = dict(n_agents=25, max_episode_steps=40)
    if name == "Ant":
        kwargs["include_cfrc_ext_in_observation"] = True
    return lambda: make_represented_vec_env(f"rmdp/{name}Velocity-v0", 3, seed=5, env_kwargs=kwargs)


def nearness(obs: Any, action: Any, next_obs: Any, info: Any) -> Any:
    """Agents want the first number that is observed at 25 places."""
    return 1.0 - np.abs(float(next_obs[0]) - np.linspace(-1.0, 1.0, 25))


def given_agents(env_id: str, **kwargs: Any) -> Callable[[], VecEnv]:
    def make() -> gym.Env:
        return VectorReward(gym.make(env_id, **kwargs), nearness, 25)

    return lambda: make_vec_env(make, 3, seed=5)


def normalized(env: VecEnv) -> VecEnv:
    return VecNormalize(env, norm_reward=False)


def evaluating(folder: Path) -> list[BaseCallback]:
    """Episodes begin at random in evaluations as well."""
    return [
        WelfareEvalCallback(cheetah(1), n_eval_episodes=1, eval_freq=30, deterministic=False, verbose=0),
        EvalCallback(cheetah(1), n_eval_episodes=3, eval_freq=35, log_path=str(folder), deterministic=False, verbose=0),
        KeepBestCallback(window=2),
        AnnealCallback("ent_coef", 0.1, 0.0),
    ]


RUNS: dict[str, Run] = {
    **{f"grid-{name}": Run(grid, name) for name in ASSIGNMENTS},
    **{f"cheetah-{name}": Run(cheetah, name) for name in ASSIGNMENTS},
    "uneven": Run(lambda: cheetah(2), "episodes"),
    "one-env": Run(lambda: grid(1), "em"),
    "gsde": Run(cheetah, "end_to_end", dict(use_sde=True, sde_sample_freq=3)),
    "factored": Run(lambda: cheetah(n_features=40), "episodes"),
    "nash": Run(grid, "episodes", dict(welfare="nash", welfare_kwargs=dict(shift=1.0, minimum=5.0))),
    "target-kl": Run(cheetah, "em", dict(target_kl=0.01, clip_range_vf=0.3, normalize_advantage="rollout")),
    "critic-rank": Run(cheetah, "em", dict(critic_rank=4)),
    "callbacks": Run(cheetah, "episodes", {}, evaluating, log_interval=3),
    "ant": Run(robot("Ant"), "em"),
    "hopper": Run(robot("Hopper"), "episodes"),
    "cartpole": Run(given_agents("CartPole-v1"), "episodes"),
    "reacher": Run(given_agents("Reacher-v5"), "em"),
    "normalized": Run(lambda: normalized(cheetah()), "em", dict(normalize_observations=False)),
    "stacked": Run(lambda: VecFrameStack(VecMonitor(DummyVecEnv([lambda: gym.make(GRID)] * 3)), 2), "em"),
    "unseeded": Run(cheetah, "episodes", dict(seed=None)),
    "processes": Run(lambda: make_vec_env(f"sb3_rmdp.envs:{CHEETAH}", 2, seed=5, vec_env_cls=SubprocVecEnv)),
}


#: Runs of which all checkpoints are gone on from; of the others, one is
EVERY_CHECKPOINT = ("grid-", "cheetah-", "callbacks")


class Curve(KVWriter):
    """Keeps all that is logged, but for what clocks say."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.rows.append((step, {name: value for name, value in key_values.items() if name not in CLOCKS}))

    def close(self) -> None:
        pass


class SaveBetween(BaseCallback):
    """Saves where a rollout begins, and where one ends: its assignment is another then, and its weights are still the same."""

    def __init__(self, folder: Path, timesteps: int):
        super().__init__()
        self.folder, self.timesteps = folder, timesteps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps == self.timesteps:
            self.model.save(self.folder / "between")

    def _on_rollout_end(self) -> None:
        if self.num_timesteps == self.timesteps:
            self.model.save(self.folder / "end")


def model_of(run: Run, env: VecEnv) -> RepresentedPPO:
    kwargs: dict[str, Any] = dict(
        n_steps=N_STEPS,
        batch_size=10,
        n_epochs=2,
        seed=0,
        device="cpu",
        learning_rate=LinearSchedule(3e-3, 1e-4, 1.0),
        policy_kwargs=dict(net_arch=[16]),
        stats_window_size=5,
    )
    assignment_kwargs = ASSIGNMENT_KWARGS.get(run.assignment)
    kwargs |= dict(assignment=run.assignment, assignment_kwargs=assignment_kwargs, **run.kwargs)
    return RepresentedPPO("MlpPolicy", env, k=3, **kwargs)


def learn(model: RepresentedPPO, run: Run, folder: Path, timesteps: int, more: list[BaseCallback]) -> list[Any]:
    """Learn until so many timesteps are done in all, and return what is logged."""
    curve = Curve()
    model.set_logger(Logger(None, [curve]))
    checkpoints = CheckpointCallback(N_STEPS * HALF + N_STEPS // 3, str(folder), "within")
    callbacks = [*run.callbacks(folder), *more, checkpoints]
    going_on = model.num_timesteps > 0
    model.learn(timesteps - model.num_timesteps, callbacks, run.log_interval, reset_num_timesteps=not going_on)
    model.dump_logs()  # of the last update, too
    return curve.rows


def end_of(model: RepresentedPPO) -> dict[str, Any]:
    """All that the rest of a training would depend on."""
    env = model.get_env()
    assert env is not None and model._return_tracker is not None and model._acting is not None
    return {
        **model.get_parameters(),
        "counts": [model.num_timesteps, model._n_updates, model._n_rollouts],
        "acting": model._acting,
        "means": model._mean_returns,
        "running": model._return_tracker.get_state(),
        "episodes": [(info["r"], info["l"]) for info in model.ep_info_buffer],  # type: ignore[union-attr]
        "remembered": model.assignment.get_run_state(),
        "welfare": model.welfare.state,
        "random": random_state(model.device),
        "env": vec_env_state(env),
        "observed": model._last_obs,
    }


def train(name: str, folder: Path) -> None:
    """Without a break."""
    run, folder = RUNS[name], folder / name
    folder.mkdir()
    env = run.make_env()
    model = model_of(run, env)
    per_rollout = env.num_envs * N_STEPS
    rows = learn(model, run, folder, N_ROLLOUTS * per_rollout, [SaveBetween(folder, HALF * per_rollout)])
    (folder / "unbroken").write_bytes(pack({"rows": rows, "end": end_of(model)}))
    env.close()


def go_on(name: str, folder: Path) -> None:
    """From all checkpoints."""
    run, folder = RUNS[name], folder / name
    for checkpoint in sorted(folder.glob("*.zip" if name.startswith(EVERY_CHECKPOINT) else "end.zip")):
        env = run.make_env()
        model = RepresentedPPO.load(checkpoint, env=env, device="cpu")
        # Whoever evaluates it first does no harm
        np.random.random(7)
        timesteps = N_ROLLOUTS * env.num_envs * N_STEPS
        rows = learn(model, run, folder / "again", timesteps, [SaveBetween(folder, -1)])
        checkpoint.with_suffix(".resumed").write_bytes(pack({"rows": rows, "end": end_of(model)}))
        env.close()


if __name__ == "__main__":
    for each in sorted(Path(sys.argv[1]).iterdir()):
        go_on(each.name, Path(sys.argv[1]))
