"""Trainings in which agents go to the best episodes that were seen."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.assignment import EpisodeAssignment
from tests.probes import Drift, KnownAssignment, Probe, Spaces, time_limited, vectorized
from tests.represented_ppo.test_factored import by_vector, factored
from tests.represented_ppo.test_is_ppo import Lonely, assert_same_weights, pair
from tests.represented_ppo.test_save_load import assert_equal_states

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu", assignment="episodes")
#: Everything happens early
EAGER: dict[str, Any] = dict(warm_start=1, patience=2, stagnation=2, move_cost=0.0, archive_size=4)
BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)


class Paces(Drift):
    """Three actions, each of which is best for one agent."""

    action_space = spaces.Discrete(3)

    def rewards(self, action: Any) -> np.ndarray:
        return 1.0 - 0.4 * np.abs(int(action) - np.arange(3))


class Steady(Spaces):
    """Any spaces, and no chance: what is seen tells the time, and what is paid depends on it and on the action."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, n_agents: int):
        super().__init__(observation_space, action_space, n_agents)
        observation_space.seed(0)
        self.seen = [observation_space.sample() for _ in range(self.horizon + 1)]

    def observe(self) -> Any:
        return self.seen[self.time]

    def rewards(self, action: Any) -> np.ndarray:
        rng = np.random.default_rng([self.time, *np.asarray(action).tobytes()])
        return rng.uniform(-1.0, 1.0, self.n_agents)


class Watch(BaseCallback):
    """Takes note of what happens after each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.n_lessons: list[int] = []
        self.n_new = 0
        self.lengths: set[int] = set()
        self.archived: list[int] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assignment = self.model.assignment
        lessons = assignment.lessons()
        self.n_lessons.append(len(lessons))
        self.n_new += sum(lesson.new for lesson in lessons)
        self.archived.append(len(assignment.archive))
        self.lengths |= {len(one.trajectory.actions) for one in assignment.archive.episodes}
        assert self.logger.name_to_value["assignment/lessons"] == len(lessons)
        assert self.logger.name_to_value["assignment/moves"] == sum(lesson.new for lesson in lessons)
        assert set(assignment.representatives) == set(range(assignment.k))


def gathering(**kwargs: Any) -> gym.Env:
    """Nine tiles; a tour of two and one of ten steps are the best two: welfare 94."""
    return gym.make("rmdp/ResourceGathering-v0", shape=(3, 3), home=(2, 1), max_episode_steps=12, **kwargs)


def gatherers(assignment: str, n_rollouts: int = 30, **kwargs: Any) -> RepresentedPPO:
    learning = dict(n_steps=128, batch_size=64, n_epochs=5, learning_rate=1e-3, gamma=1.0, ent_coef=0.01, seed=2, device="cpu")
    model = RepresentedPPO("MlpPolicy", gathering(), k=2, assignment=assignment, **(learning | kwargs))
    return model.learn(n_rollouts * 128 * 2)


def test_the_optimum_is_reached_where_em_stays_below() -> None:
    optimum = gathering().unwrapped.welfare_bound(2)  # type: ignore[attr-defined]
    welfare = {name: evaluate_welfare(gatherers(name), gathering(), 1).social_welfare for name in ("episodes", "em")}
    assert welfare["episodes"] == pytest.approx(optimum, abs=1e-4)
    assert welfare["em"] < 0.9 * optimum


# k == n_agents (3), k == 1, n_envs == n_agents, n_envs no multiple of k, one environment for all
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size:UserWarning")
@pytest.mark.parametrize(("n_envs", "k"), [(3, 3), (3, 1), (1, 3), (4, 3), (5, 2)])
def test_every_number_of_environments(n_envs: int, k: int) -> None:
    """Time limits, and episodes of which each runs through three rollouts or more."""
    watch = Watch()
    env = vectorized(lambda: time_limited(Paces(), 40), n_envs)
    model = RepresentedPPO("MlpPolicy", env, k=k, assignment_kwargs=EAGER, **SMALL)
    model.learn(20 * 16 * n_envs, callback=watch)
    assert watch.lengths == {40}
    assert max(watch.archived) <= 4 and sum(watch.n_lessons) > 0
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


SPACES: dict[str, tuple[spaces.Space, spaces.Space, str]] = {
    "continuous": (BOX, spaces.Box(-1.0, 1.0, (2,), np.float32), "MlpPolicy"),
    "discrete": (spaces.Discrete(5), spaces.Discrete(3), "MlpPolicy"),
    "multi_discrete": (spaces.MultiDiscrete([3, 2]), spaces.MultiDiscrete([2, 3]), "MlpPolicy"),
    "multi_binary": (spaces.MultiBinary(3), spaces.MultiBinary(2), "MlpPolicy"),
    "dict": (spaces.Dict({"x": BOX, "d": spaces.Discrete(3)}), spaces.Discrete(3), "MultiInputPolicy"),
    "image": (spaces.Box(0, 255, (36, 36, 1), np.uint8), spaces.Discrete(2), "CnnPolicy"),
}


@pytest.mark.parametrize("chance", [False, True])
@pytest.mark.parametrize("case", SPACES)
def test_lessons_in_every_space(case: str, chance: bool, tmp_path: Path) -> None:
    observations, actions, policy = SPACES[case]
    observations.seed(0)
    env, watch = vectorized(lambda: (Spaces if chance else Steady)(observations, actions, 4), 2), Watch()
    model = RepresentedPPO(policy, env, k=2, assignment_kwargs=EAGER, **SMALL)
    model.learn(12 * 16 * 2, callback=watch)
    assert sum(watch.n_lessons) > 0 and max(watch.archived) <= 4
    # Where chance has a part, and with continuous actions, only those have lessons who were sent far away
    assert watch.n_new > 0 or not (chance or case == "continuous")
    if case != "continuous":
        assert model.assignment.archive.varies is chance
    model.save(tmp_path / "model")
    loaded = RepresentedPPO.load(tmp_path / "model", env=env, device="cpu")
    assert_equal_states(loaded.get_parameters(), model.get_parameters())
    loaded.learn(2 * 16 * 2, reset_num_timesteps=False)


@pytest.mark.parametrize("kwargs", [dict(use_sde=True), dict(clip_range_vf=0.2), dict(target_kl=1e-4), dict(critic_rank=2)])
def test_other_arguments(kwargs: dict[str, Any]) -> None:
    watch = Watch()
    env = vectorized(lambda: Spaces(BOX, BOX, 4), 2)
    model = RepresentedPPO("MlpPolicy", env, k=2, assignment_kwargs=EAGER, **SMALL, **kwargs).learn(192, callback=watch)
    assert watch.n_new > 0 and all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


def test_what_is_saved_and_gone_on_with(tmp_path: Path) -> None:
    model = gatherers("episodes", 12, assignment_kwargs=dict(warm_start=2))
    assignment = model.assignment
    assert isinstance(assignment, EpisodeAssignment) and any(aim is not None for aim in assignment.aims)
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        state = th.load(io.BytesIO(archive.read("assignment.pth")), weights_only=True)
    assert_equal_states(state, assignment.state_dict())

    alone = RepresentedPPO.load(tmp_path / "model", device="cpu")
    assert isinstance(alone.assignment, EpisodeAssignment) and len(alone.assignment.archive) == 0
    np.testing.assert_array_equal(alone.assignment.representatives, assignment.representatives)
    assert alone.assignment.time_left.tolist() == assignment.time_left.tolist()
    for found, expected in zip(alone.assignment.aims, assignment.aims, strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert found.key == expected.key and found.n_samples == expected.n_samples
            np.testing.assert_array_equal(found.returns, expected.returns)
            np.testing.assert_array_equal(found.trajectory.observations, expected.trajectory.observations)
    obs = np.random.default_rng(0).uniform(size=(5, 11)).astype(np.float32)
    for j in range(2):
        acts = [one.predict(obs, representative=j, deterministic=True)[0] for one in (model, alone)]
        np.testing.assert_array_equal(*acts)
    assert evaluate_welfare(alone, gathering(), 1).social_welfare == evaluate_welfare(model, gathering(), 1).social_welfare

    loaded = RepresentedPPO.load(tmp_path / "model", env=gathering(), device="cpu")
    watch = Watch()
    loaded.learn(6 * 128 * 2, callback=watch, reset_num_timesteps=False)
    assert loaded.num_timesteps == 18 * 128 * 2 and len(loaded.assignment.archive) > 0


def test_with_factored_rewards_a_file_needs_no_weights_to_predict(tmp_path: Path) -> None:
    settings = {**SMALL, "n_steps": 24, "assignment_kwargs": {**EAGER, "exploration": 1.0}}
    model = RepresentedPPO("MlpPolicy", vectorized(factored, 3), k=3, **settings)
    model.learn(8 * 72, callback=Watch())
    assert any(aim is not None for aim in model.assignment.aims)
    model.save(tmp_path / "model")
    alone = RepresentedPPO.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(alone.assignment.representatives, model.assignment.representatives)
    assert alone.predict(np.ones(2, dtype=np.float32), representative=2)[0].shape == (1,)
    loaded = RepresentedPPO.load(tmp_path / "model", env=vectorized(factored, 3), device="cpu")
    loaded.learn(2 * 72, reset_num_timesteps=False)
    with pytest.raises(ValueError, match="the environment gives reward vectors"):
        loaded.set_env(vectorized(by_vector, 3))


def test_memory_is_bounded_after_every_update() -> None:
    class Gradual(Probe):
        """Every action is best for some of many agents."""

        n_agents = 20
        action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

        def rewards(self, action: np.ndarray) -> np.ndarray:
            return 1.0 - (action[0] - np.linspace(-1.0, 1.0, 20)) ** 2

    watch = Watch()
    kwargs = dict(warm_start=2, archive_size=16)
    model = RepresentedPPO("MlpPolicy", vectorized(Gradual, 3), k=3, assignment_kwargs=kwargs, **SMALL)
    model.learn(8 * 48, callback=watch)
    assert watch.archived == [16] * 8


def test_one_agent_with_one_representative_is_ppo() -> None:
    stock, ours = pair(lambda: time_limited(Lonely()))
    ours.assignment = EpisodeAssignment(1, 1, warm_start=1)
    ours.assignment.connect(ours.reward_weights, ours.value_weights)
    watch = Watch()
    for model in (stock, ours):
        set_random_seed(3)
        model.env.seed(3)
        model.learn(6 * 32, callback=watch if model is ours else None)
    assert_same_weights(stock, ours)
    # Nobody to choose for, and nothing that PPO would not find by itself
    assert sum(watch.n_lessons) == 0 and watch.n_new == 0


def test_agents_who_are_served_by_an_episode_are_known_partitions() -> None:
    kwargs = dict(n_epochs=5, batch_size=32, learning_rate=3e-3, n_steps=128, ent_coef=0.1, seed=0, device="cpu")
    model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), k=3, assignment="episodes", **kwargs)
    model.learn(20 * 3 * 128)
    result = evaluate_welfare(model, KnownAssignment(), n_eval_episodes=1)
    assert result.social_welfare == pytest.approx(KnownAssignment.optimum, rel=1e-6)
    groups = {frozenset(np.flatnonzero(result.assignment == j).tolist()) for j in range(3)}
    assert groups == {frozenset(group) for group in KnownAssignment.partition}


@pytest.mark.parametrize(("max_episode_steps", "falls"), [(5, False), (1000, True)])
def test_whether_episodes_last_is_told(max_episode_steps: int, falls: bool) -> None:
    """Robots that know nothing fall, but not in five steps."""
    env = gym.make("rmdp/HopperVelocity-v0", n_agents=3, max_episode_steps=max_episode_steps)
    model = RepresentedPPO("MlpPolicy", env, k=2, **{**SMALL, "n_steps": 256}).learn(512)
    assert len(model.assignment.archive) > 0 and model.assignment._falls == falls
