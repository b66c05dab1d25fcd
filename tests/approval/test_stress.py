"""Other conditions: they do what they say, leave nothing behind, and never cost what was found before."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from sb3_rmdp.approval.episodes import ObservationSpread
from sb3_rmdp.approval.findings import StressFindings, collect_findings
from sb3_rmdp.approval.plan import make_plan
from sb3_rmdp.approval.stress import NoisyObservations, stress_cases
from sb3_rmdp.vec_env import VelocityVecEnv, make_represented_vec_env
from sb3_rmdp.vec_env.watch import innermost
from tests.approval.probes import Noisy, make_model
from tests.probes import Spaces, TwoGroups, vectorized

HOPPER = "rmdp/HopperVelocity-v0"


def hoppers(vec_env_cls: Any = None) -> VecEnv:
    return make_represented_vec_env(
        HOPPER, 2, seed=0, env_kwargs=dict(n_agents=5, max_episode_steps=30), vec_env_cls=vec_env_cls
    )


class Shifted(gym.ActionWrapper):
    """Something pushes."""

    def action(self, action: np.ndarray) -> np.ndarray:
        return action + 0.25


def test_spread_of_observations() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal([1e4, -2.0], [0.1, 3.0], size=(n, 2)).astype(np.float32) for n in (1, 7, 100)]
    spread = ObservationSpread(spaces.Box(-np.inf, np.inf, (2,), np.float32))
    for batch in batches:
        spread.add(batch)
    np.testing.assert_allclose(spread.std(), np.concatenate(batches).std(axis=0, dtype=np.float64), rtol=1e-6)


def test_noise_has_the_standard_deviation_that_was_asked_for() -> None:
    env = vectorized(Noisy, 200)
    env.seed(0)
    clean = env.reset()
    env.seed(0)
    std = np.array([0.5, 0.0])
    noisy = NoisyObservations(env, std)
    noise = np.concatenate([noisy.reset() - clean] + [(env.seed(0), noisy.reset() - clean)[1] for _ in range(20)])
    assert (noise[:, 1] == 0.0).all()
    assert noise[:, 0].std() == pytest.approx(0.5, rel=0.05) and abs(noise[:, 0].mean()) < 0.05
    assert noisy.reset().dtype == np.float32


def test_noisy_pictures_stay_pictures() -> None:
    space = spaces.Box(0, 255, (4, 4, 1), np.uint8)
    noisy = NoisyObservations(vectorized(lambda: Spaces(space, spaces.Discrete(2)), 2), np.full(space.shape, 500.0))
    obs = noisy.reset()
    assert isinstance(obs, np.ndarray) and obs.dtype == np.uint8 and {0, 255} <= set(obs.ravel().tolist())


def case(env: VecEnv, name: str) -> Any:
    (found,) = [one for one in stress_cases(env, None, {}) if one.name == name]
    assert found.apply is not None, found.why_not
    return found.apply(env)


def constants(env: VecEnv) -> list[np.ndarray]:
    base = innermost(env)
    assert isinstance(base, DummyVecEnv)
    names = ("body_mass", "body_inertia", "body_subtreemass", "dof_invweight0", "body_invweight0", "geom_friction")
    models = [one.unwrapped.model for one in base.envs]  # type: ignore[attr-defined]
    return [np.array(getattr(model, name)) for model in models for name in names] + [np.array(models[0].opt.gravity)]


@pytest.mark.parametrize("name", ["gravity +10 %", "friction -20 %", "masses +20 %"])
def test_physics_is_changed_and_changed_back(name: str) -> None:
    env = hoppers()
    assert isinstance(env, VelocityVecEnv)
    before = constants(env)
    with case(env, name):
        changed = [not np.array_equal(a, b) for a, b in zip(before, constants(env), strict=True)]
        of_one = {"gravity +10 %": [0] * 6, "friction -20 %": [0] * 5 + [1], "masses +20 %": [1] * 5 + [0]}[name]
        assert changed == [bool(hit) for hit in of_one] * 2 + [name.startswith("gravity")]
    for a, b in zip(before, constants(env), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("name", ["gravity -10 %", "masses +20 %"])
def test_robots_that_are_stepped_together_feel_it_as_single_ones_do(name: str) -> None:
    trajectories = {}
    for kind in (None, DummyVecEnv):
        env = hoppers(kind)
        rng = np.random.default_rng(0)
        actions = rng.uniform(-1.0, 1.0, size=(12, 2, 3)).astype(np.float32)
        for stressed in (False, True):
            env.seed(0)
            if stressed:
                with case(env, name):
                    obs = [env.reset()] + [env.step(action)[0] for action in actions]
            else:
                obs = [env.reset()] + [env.step(action)[0] for action in actions]
            trajectories[kind, stressed] = np.array(obs)
    np.testing.assert_array_equal(trajectories[None, True], trajectories[DummyVecEnv, True])
    np.testing.assert_array_equal(trajectories[None, True][0], trajectories[None, False][0])
    assert np.abs(trajectories[None, True] - trajectories[None, False])[1:].max() > 1e-3


def stressed(env: VecEnv, groups: list[int], n_eval_episodes: int = 3, **kwargs: Any) -> dict[str, StressFindings]:
    model = make_model(env, groups)
    plan = make_plan(env, model.n_agents, n_eval_episodes, seeds=[4], **kwargs)
    findings = collect_findings(model, env, plan)
    again = collect_findings(model, env, plan)
    # Nothing of the stress is left
    np.testing.assert_array_equal(findings.result.utilities, again.result.utilities)
    for one in findings.stress:
        if not one.why_not:
            assert one.change == one.welfare - findings.result.social_welfare
    return {one.name: one for one in findings.stress}


@pytest.mark.parametrize("normalized", [False, True])
def test_a_case_of_one_s_own_has_known_utilities(normalized: bool) -> None:
    plain = vectorized(TwoGroups, 2)
    env: VecEnv = VecNormalize(plain, norm_reward=False) if normalized else plain
    model = make_model(env, [0, 0, 1, 1, 0, 1])
    plan = make_plan(env, 6, 2, seeds=1, stress={"shifted": Shifted})
    findings = collect_findings(model, env, plan)
    found = findings.stress[-1]
    obs = env.reset()
    actions = [float(model.predict(obs, representative=j, deterministic=True)[0][0, 0]) for j in (0, 1)]
    wishes, groups = TwoGroups.wishes, np.array([0, 0, 1, 1, 0, 1])
    expected = 1.0 - (np.array(actions)[groups] + 0.25 - wishes) ** 2
    assert found.name == "shifted" and found.welfare == pytest.approx(expected.mean(), rel=1e-4)
    assert found.worst_agent == expected.argmin() and found.worst_utility == pytest.approx(expected.min(), rel=1e-4)
    before = 1.0 - (np.array(actions)[groups] - wishes) ** 2
    assert found.change == pytest.approx(expected.mean() - before.mean(), rel=1e-4) and abs(found.change) > 0.01
    assert innermost(env) is plain


def test_start_states_and_noise() -> None:
    found = stressed(vectorized(Noisy, 2), [0, 1, 0, 1, 0, 0])
    assert found["start states of other seeds"].change != 0.0
    assert found["gravity -10 %"].why_not == "the environment is not one of MuJoCo"
    # Rewards of this game do not depend on observations but through actions, which small noise leaves as they are
    assert found["observation noise, 1 %"].change == 0.0
    assert found["observation noise, 1 %"].change_error > 0.0


def test_all_cases_can_be_had_with_mujoco() -> None:
    found = stressed(hoppers(), [0, 1, 0, 1, 1], 1)
    assert len(found) == 10 and not [one for one in found.values() if one.why_not]


def test_what_cannot_be_had_says_why() -> None:
    space = spaces.Dict(a=spaces.Box(-1.0, 1.0, (2,)))
    env = vectorized(lambda: Spaces(space, spaces.Discrete(2)), 2)
    assert {one.why_not for one in stress_cases(env, None, {})[:3]} == {"observations are Dict, not Box"}
    elsewhere = SubprocVecEnv([lambda: Noisy()] * 2, start_method="fork")
    try:
        cases = stress_cases(elsewhere, None, {"shifted": Shifted})
        assert all("not in this process" in one.why_not and one.apply is None for one in cases[4:])
    finally:
        elsewhere.close()


def refuse(env: gym.Env) -> gym.Env:
    raise KeyError("no")


class Sideways(gym.ObservationWrapper):
    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)


@pytest.mark.parametrize(
    ("wrapper", "text"), [(refuse, "cannot wrap"), (lambda env: None, "gave NoneType"), (Sideways, "changes the observation")]
)
def test_wrong_cases_of_one_s_own(wrapper: Any, text: str) -> None:
    with pytest.raises(ValueError, match=f"stress case 'mine' {text}"):
        make_plan(vectorized(Noisy, 1), 6, stress={"mine": wrapper})


class Breaks(gym.Wrapper):
    def step(self, action: Any) -> Any:
        raise RuntimeError("out of order")


def test_a_case_that_fails_costs_only_itself() -> None:
    found = stressed(vectorized(Noisy, 2), [0, 1, 0, 1, 0, 0], stress={"broken": Breaks})
    assert found["broken"].why_not == "it failed: RuntimeError: out of order"
    assert found["observation noise, 5 %"].why_not == "" and np.isnan(found["broken"].welfare)
