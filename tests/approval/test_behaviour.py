"""Pictures of an episode: the right ones, or a reason why there are none."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rmdp.approval.behaviour import NO_DISPLAY, watch
from sb3_rmdp.envs.grid_picture import draw_grid
from sb3_rmdp.vec_env import make_represented_vec_env
from tests.approval.probes import Noisy, make_model
from tests.probes import vectorized

GRID = "rmdp/ResourceGathering-v0"
GROUPS = [0, 1, 0, 1, 0, 0]


@pytest.mark.parametrize("normalized", [False, True])
def test_frames_show_the_episode_that_was_played(normalized: bool) -> None:
    env = make_represented_vec_env(GRID, 2)
    env = VecNormalize(env, norm_reward=False) if normalized else env
    model = make_model(env, [0, 1] * 12 + [0])
    seen = watch(model, env, 1, deterministic=False, seed=7, n_frames=4)
    assert seen.why_none == "" and 2 <= len(seen.frames) <= 4 and not seen.timed_out
    assert seen.frames[0][0] == 0 and seen.frames[-1][0] == seen.steps
    # Play it again
    th.manual_seed(7)
    np.random.seed(7)
    env.seed(7)
    obs, done, infos = env.reset(), False, [{}]
    while not done:
        obs, _, dones, infos = env.step(model.predict(obs, deterministic=False, representative=1)[0])
        done = bool(dones[0])
    tour = infos[0]["tour"]
    assert len(tour) - 1 == seen.steps
    for step, frame in seen.frames:
        np.testing.assert_array_equal(frame, draw_grid((5, 5), (4, 2), tour[: step + 1]))
    served = [agent for agent in range(25) if agent % 2 == 1]
    assert seen.utility == pytest.approx(infos[0]["reward_vector"][served].mean())


def test_start_states_are_repeated() -> None:
    env = make_vec_env("probe/Painted-v0", 2)
    model = make_model(env, GROUPS)
    seen = watch(model, env, 0, deterministic=False, seed=3, n_frames=3)
    assert [int(frame[0, 0, 0]) for _, frame in seen.frames] == [10 * step for step, _ in seen.frames]


@pytest.mark.parametrize(
    ("name", "text"), [("Noisy", 'does not render with render_mode="rgb_array"'), ("Forgetful", "did not repeat the episode")]
)
def test_why_there_are_no_pictures(name: str, text: str) -> None:
    env = DummyVecEnv([lambda: gym.make(f"probe/{name}-v0")] * 2)
    model = make_model(env, GROUPS)
    seen = watch(model, env, 0, deterministic=True, seed=3, n_frames=3)
    assert not seen.frames and text in seen.why_none and seen.steps >= 1
    assert watch(model, env, 0, deterministic=True, seed=3, n_frames=0).why_none == ""


def test_environments_that_were_not_made_by_gymnasium() -> None:
    env = vectorized(Noisy, 2)
    assert "gymnasium.make" in watch(make_model(env, GROUPS), env, 0, True, 0, 3).why_none


def test_robots_without_a_display_tell_their_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    env = make_represented_vec_env("rmdp/HopperVelocity-v0", 2, env_kwargs=dict(n_agents=4))
    model = make_model(env, [0, 1, 0, 1])
    seen = watch(model, env, 1, deterministic=True, seed=0, n_frames=3)
    assert seen.why_none == NO_DISPLAY and not seen.frames
    assert len(seen.speeds) == seen.steps > 1 and np.isfinite(seen.speeds).all()


def test_a_representative_that_serves_nobody_is_watched_as_well() -> None:
    env = make_vec_env("probe/Painted-v0", 2)
    seen = watch(make_model(env, [0] * 6, k=2), env, 1, True, 0, 2)
    assert np.isnan(seen.utility) and seen.frames


@pytest.mark.parametrize(
    ("robot", "kwargs", "camera"),
    [
        ("HalfCheetah", {}, {"camera_name": "track"}),
        ("Hopper", {}, {}),
        ("HalfCheetah", {"camera_id": 0}, {}),
    ],
)
def test_cameras_go_along(robot: str, kwargs: dict, camera: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    env = make_represented_vec_env(f"rmdp/{robot}Velocity-v0", 1, env_kwargs=dict(n_agents=2, max_episode_steps=2, **kwargs))
    model = make_model(env, [0, 0])
    made: list[dict] = []

    def make(spec: object, **arguments: object) -> gym.Env:
        made.append(arguments)
        raise RuntimeError("not here")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(gym, "make", make)
    assert watch(model, env, 0, True, 0, 2).why_none == "not here"
    assert made == [{"render_mode": "rgb_array", **camera}]
