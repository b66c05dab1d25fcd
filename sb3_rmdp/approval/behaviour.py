"""What a representative does: pictures and speeds of one episode."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.envs.mujoco import MujocoEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_rmdp.approval.episodes import frozen
from sb3_rmdp.approval.provenance import spec_of
from sb3_rmdp.common.exploration import new_noise_per_episode
from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.common.population import agent_weights_of, reward_key, reward_vectors
from sb3_rmdp.common.seeds import environment_seed, seed_evaluation
from sb3_rmdp.vec_env.episodes import ENDLESS, time_limit
from sb3_rmdp.vec_env.watch import innermost

NO_DISPLAY = "MuJoCo has no display to draw on here; set MUJOCO_GL=egl, or MUJOCO_GL=osmesa without a graphics driver"


@dataclass(frozen=True)
class Behaviour:
    """
    One episode of a representative, from the first start state of the first seed.

    :param representative: which one
    :param steps: length of the episode
    :param timed_out: a time limit ended it
    :param utility: mean return over the agents that the representative serves; nan if it serves nobody
    :param speeds: ``info["x_velocity"]`` of every step, in the environment's unit; empty if it does not tell
    :param frames: pictures with the number of steps before them, (height, width, 3) uint8 each
    :param why_none: why there are no pictures; empty if there are, or none were asked for
    """

    representative: int
    steps: int
    timed_out: bool
    utility: float
    speeds: tuple[float, ...] = ()
    frames: tuple[tuple[int, np.ndarray], ...] = ()
    why_none: str = ""


def watch(
    model: RepresentedOnPolicyAlgorithm, env: VecEnv, representative: int, deterministic: bool, seed: int, n_frames: int
) -> Behaviour:
    """
    Let a representative act for one episode, and draw it.

    The episode is played in ``env``, with all its wrappers, and its actions are repeated in a copy of the environment that
    draws. Whether that went the same way is checked.

    :param model: the model
    :param env: a vec env with its agents
    :param representative: who acts
    :param deterministic: take the likeliest actions
    :param seed: of the start state and the actions
    :param n_frames: pictures at most, 0 for none
    :return: what was seen
    """
    seed_evaluation(env, seed)
    with frozen(env), new_noise_per_episode(model, env.num_envs, deterministic):
        actions, rewards, seen = _play(model, env, representative, deterministic)
    if n_frames < 1:
        return seen
    try:
        return replace(seen, frames=tuple(_draw(env, actions, rewards, environment_seed(seed), n_frames)))
    except Exception as error:  # drivers, displays, environments of the user's: pictures are not worth a report
        return replace(seen, why_none=" ".join(str(error).split()) or type(error).__name__)


def _play(
    model: RepresentedOnPolicyAlgorithm, env: VecEnv, representative: int, deterministic: bool
) -> tuple[list[Any], list[float], Behaviour]:
    """Actions and rewards of the first environment, until its episode ends."""
    weights = agent_weights_of(env, model.n_agents)
    returns = np.zeros(weights.size)
    actions: list[Any] = []
    rewards: list[float] = []
    speeds: list[float] = []
    obs, over, info = env.reset(), False, {}
    patience = max(ENDLESS, time_limit(env) or 0)
    while not over and len(actions) < patience:
        action, _ = model.predict(obs, deterministic=deterministic, representative=representative)  # type: ignore[arg-type]
        obs, reward, dones, infos = env.step(action)
        over, info = bool(dones[0]), infos[0]
        actions.append(action[0])
        rewards.append(float(reward[0]))
        returns += reward_vectors(infos, weights.size, reward_key(weights))[0]
        if "x_velocity" in info:
            speeds.append(float(info["x_velocity"]))
    served = np.flatnonzero(model.assignment.representatives == representative)
    utilities = weights.of_agents(th.as_tensor(returns)[:, None])[:, 0].numpy()
    seen = Behaviour(
        representative=representative,
        steps=len(actions),
        timed_out=bool(info.get("TimeLimit.truncated", False)) or not over,
        utility=float(utilities[served].mean()) if len(served) else np.nan,
        speeds=tuple(speeds),
    )
    return actions, rewards, seen


def _draw(env: VecEnv, actions: list[Any], rewards: list[float], seed: int, n_frames: int) -> list[tuple[int, np.ndarray]]:
    """
    Repeat an episode in an environment that draws.

    :raises RuntimeError: if that is not possible
    """
    wanted = np.unique(np.linspace(0, len(actions), n_frames).round().astype(int))
    copy = _drawing_copy(env)
    frames: list[tuple[int, np.ndarray]] = []
    again: list[float] = []
    try:
        copy.reset(seed=seed)
        for step in range(len(actions) + 1):
            if step in wanted:
                frames.append((step, _picture(copy)))
            if step < len(actions):
                again.append(float(copy.step(actions[step])[1]))
    finally:
        copy.close()
    if not np.allclose(again, rewards, rtol=1e-4, atol=1e-6):
        raise RuntimeError("a copy of the environment did not repeat the episode with the same seed and actions")
    return frames


def _drawing_copy(env: VecEnv) -> gym.Env:
    """The environment, made anew to draw."""
    spec = spec_of(env)
    if spec is None:
        raise RuntimeError("the environment was not made by gymnasium.make, so that no copy of it can be made that draws")
    base = innermost(env)
    task = base.envs[0].unwrapped if isinstance(base, DummyVecEnv) else None
    robot = task if isinstance(task, MujocoEnv) else None
    if robot is not None and sys.platform == "linux" and not {"MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        # It would try, fail, and complain on stderr
        raise RuntimeError(NO_DISPLAY)
    modes = env.get_attr("metadata", indices=0)[0].get("render_modes", [])
    if "rgb_array" not in modes:
        raise RuntimeError('the environment does not render with render_mode="rgb_array"')
    # SB3's Monitor cannot be made anew, and need not be
    kept = tuple(wrapper for wrapper in spec.additional_wrappers if not wrapper.entry_point.endswith(":Monitor"))
    camera: dict[str, Any] = {} if robot is None or {"camera_id", "camera_name"} & set(spec.kwargs) else _camera(robot)
    return gym.make(replace(spec, additional_wrappers=kept), render_mode="rgb_array", **camera)


def _camera(robot: MujocoEnv) -> dict[str, Any]:
    """Arguments of a robot by which it stays in the picture: gymnasium's own camera does not go along with all of them."""
    settings = robot.mujoco_renderer.default_cam_config or {}
    names = [robot.model.camera(i).name for i in range(robot.model.ncam)]
    return {"camera_name": "track"} if "track" in names and "trackbodyid" not in settings else {}


def _picture(env: gym.Env) -> np.ndarray:
    picture = env.render()
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3:
        raise RuntimeError(f'the environment renders {type(picture).__name__} with render_mode="rgb_array", no picture')
    return picture.astype(np.uint8, copy=True)
