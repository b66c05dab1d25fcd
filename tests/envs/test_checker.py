import os
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import registry

from sb3_rmdp.envs import (
    REWARD_VECTOR,
    HopperVelocityEnv,
    ResourceGatheringEnv,
    check_represented_env,
    scalar_reward,
)


class GoodEnv(gym.Env):
    """Three agents with a fixed wage each; episodes of five steps. Every env below breaks it in one way."""

    observation_space = spaces.Box(0, 5, shape=(1,), dtype=np.float32)
    action_space = spaces.Discrete(2)
    n_agents = 3
    population_id = "good"
    wages = np.float32([1, 2, 6])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        self.count += 1
        vector = self.vector(action)
        info = {REWARD_VECTOR: vector} if vector is not None else {}
        return np.full(1, self.count, dtype=np.float32), self.scalar(vector), self.count == 5, False, info

    def vector(self, action):
        return self.wages * np.float32(1 + action)

    def scalar(self, vector):
        return scalar_reward(vector)


def variant(base=GoodEnv, **attributes):
    """A broken copy of an env."""
    return type("BrokenEnv", (base,), attributes)()


def refused(env, message, **kwargs):
    with pytest.raises(AssertionError, match=message):
        check_represented_env(env, **kwargs)


def silent(env, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_represented_env(env, **kwargs)


def test_good_env_passes_silently():
    silent(GoodEnv())
    silent(gym.wrappers.TimeLimit(ResourceGatheringEnv(), 60))


def test_not_an_env():
    refused(object(), "object is not a gymnasium environment")


def test_no_steps():
    refused(GoodEnv(), "n_steps=0 checks nothing", n_steps=0)


@pytest.mark.parametrize(
    ("n_agents", "message"),
    [
        (None, "no attribute n_agents; set self.n_agents"),
        (3.0, "n_agents=3.0 is of type float; make it an int"),
        (np.int64(3), "is of type int64; make it an int"),
        (True, "n_agents=True is of type bool"),
        (0, "n_agents=0 is no population"),
    ],
)
def test_n_agents(n_agents, message):
    refused(variant(n_agents=n_agents), message)


def test_missing_vector():
    refused(
        variant(vector=lambda self, action: None, scalar=lambda self, vector: 0.0), "is missing at step 0; put the rewards"
    )


def test_missing_vector_at_the_last_step_only():
    env = variant(
        vector=lambda self, action: None if self.count == 5 else self.wages.copy(),
        scalar=lambda self, vector: 3.0,
    )
    refused(env, "is missing at step 4, the last one of its episode")


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0, 2.0, 6.0], "is of type list; make it a numpy array"),
        (np.float32([1, 2]), r"has shape \(2,\); make it one reward per agent, shape \(3,\)"),
        (np.ones((3, 1), dtype=np.float32), r"has shape \(3, 1\)"),
        (np.array([1.0, 2.0, 6.0]), "is of dtype float64; make it float32"),
        (np.float32([1, np.nan, 6]), r"is not finite for agents \[1\]"),
        (np.float32([1, 2, -np.inf]), r"is not finite for agents \[2\]"),
    ],
)
def test_wrong_vector(vector, message):
    refused(variant(vector=lambda self, action: vector, scalar=lambda self, vector: 3.0), message)


@pytest.mark.parametrize("factor", [0.0, 0.999, 3.0])
def test_scalar_is_not_the_mean(factor):
    env = variant(scalar=lambda self, vector: factor * scalar_reward(vector))
    refused(env, "the mean over the agents is .*; return the mean")


def test_scalar_is_nan():
    refused(variant(scalar=lambda self, vector: float("nan")), "The scalar reward at step 0 is nan")


def test_scalar_of_another_type():
    refused(variant(scalar=lambda self, vector: vector), "is of type ndarray; return a float")


def test_scalar_rounded_to_float32_is_close_enough():
    silent(variant(scalar=lambda self, vector: float(np.float32(vector.mean()))))


def test_same_buffer_every_step():
    class Reused(GoodEnv):
        buffer = np.zeros(3, dtype=np.float32)

        def vector(self, action):
            self.buffer[:] = self.wages * np.float32(1 + action)
            return self.buffer

    refused(Reused(), "is the buffer of an earlier step")


def test_two_buffers_in_turn():
    class Alternating(GoodEnv):
        buffers = np.zeros((2, 3), dtype=np.float32)

        def vector(self, action):
            buffer = self.buffers[self.count % 2]
            buffer[:] = self.wages
            return buffer

    refused(Alternating(), "at step 2 is the buffer of an earlier step")


@pytest.mark.parametrize("population_id", [7, "", b"good"])
def test_population_id_is_no_text(population_id):
    refused(variant(population_id=population_id), "must be a str that is not empty")


def test_welfare_bound_cannot_be_called():
    refused(variant(welfare_bound=9.0), "welfare_bound=9.0 cannot be called")


class DrawnAtReset(GoodEnv):
    """The classical mistake: agents from the seed of reset."""

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        self.wages = self.np_random.random(3).astype(np.float32)
        return result


def test_population_id_changes_with_the_seed():
    class WithId(DrawnAtReset):
        @property
        def population_id(self):
            return str(self.wages)

    refused(WithId(), r"population_id was .* after reset\(seed=1\); draw the agents once")


def test_n_agents_changes_with_the_seed():
    class Growing(GoodEnv):
        def reset(self, *, seed=None, options=None):
            if seed == 2:
                self.n_agents = 4
            return super().reset(seed=seed)

    refused(Growing(), r"n_agents was 3 and is 4 after reset\(seed=2\)")


def test_rewards_change_with_the_seed():
    with pytest.warns(UserWarning, match="same actions and observations, were paid differently"):
        check_represented_env(DrawnAtReset())
    silent(DrawnAtReset(), warn=False)


def test_other_start_is_no_suspicion():
    class Noisy(GoodEnv):
        def step(self, action):
            return self.np_random.random(1).astype(np.float32), *super().step(action)[1:]

        def vector(self, action):
            return self.np_random.random(3).astype(np.float32)

    silent(Noisy())


class DrawnAtConstruction(GoodEnv):
    """Agents from a generator without a seed: every copy has others."""

    def __init__(self):
        self.wages = np.random.default_rng().random(3).astype(np.float32)
        self.population_id = str(self.wages)


@pytest.fixture
def register():
    """Register envs for one test."""
    ids = []

    def _register(env_id, entry_point):
        gym.register(env_id, entry_point)
        ids.append(env_id)
        return gym.make(env_id)

    yield _register
    for env_id in ids:
        del registry[env_id]


def test_copies_have_other_agents(register):
    refused(register("Drawn-v0", DrawnAtConstruction), r"population_id is .* in a copy made by gym.make\(env.spec\)")


def test_copies_have_another_number_of_agents(register):
    class Shrinking(GoodEnv):
        left = 3

        def __init__(self):
            self.n_agents = Shrinking.left
            self.wages = self.wages[: self.n_agents]
            Shrinking.left -= 1

    refused(register("Shrinking-v0", Shrinking), "n_agents is 3, but 2 in a copy")


def test_spec_that_cannot_be_made_again(register):
    class Single(GoodEnv):
        made = False

        def __init__(self):
            if Single.made:
                raise ValueError("only one of me")
            Single.made = True

    env = register("Single-v0", Single)
    with pytest.warns(UserWarning, match=r"gym.make\(env.spec\) failed.*only one of me"):
        check_represented_env(env)
    silent(env, warn=False)


def test_copies_are_not_made_without_recorded_wrappers(register):
    class Unrecorded(gym.Wrapper):
        pass

    silent(Unrecorded(register("Good-v0", GoodEnv)))


def test_missing_population_id_warns():
    with pytest.warns(UserWarning, match="has no population_id"):
        check_represented_env(variant(population_id=None))
    silent(variant(population_id=None), warn=False)


def test_no_end_of_an_episode_warns():
    with pytest.warns(UserWarning, match="No episode ended within 4 steps"):
        check_represented_env(GoodEnv(), n_steps=4)
    silent(GoodEnv(), n_steps=5)


def test_attributes_of_wrappers_are_found():
    class Outer(gym.Wrapper):
        n_agents = 2

        def step(self, action):
            observation, _, terminated, truncated, info = self.env.step(action)
            info[REWARD_VECTOR] = info[REWARD_VECTOR][:2].copy()
            return observation, scalar_reward(info[REWARD_VECTOR]), terminated, truncated, info

    silent(Outer(HopperVelocityEnv()))


class NoSeed(GoodEnv):
    def reset(self):
        return GoodEnv.reset(self)


class NeedsASeed(GoodEnv):
    def reset(self, seed, options):
        return GoodEnv.reset(self, seed=seed)


def resets_to(value):
    return type("ResetsTo", (GoodEnv,), {"reset": lambda self, **_: (GoodEnv.reset(self, **_), value)[1]})()


def steps_to(change):
    """An env whose step returns what a function makes of the right values."""
    return type("StepsTo", (GoodEnv,), {"step": lambda self, action: change(*GoodEnv.step(self, action))})()


FIRST = np.zeros(1, dtype=np.float32)

MISTAKES = [
    (NoSeed(), r"reset\(seed=0\) fails .*seed.*write it as def reset\(self, \*, seed=None, options=None\)"),
    (NeedsASeed(), "fails .*write it as def reset"),
    (resets_to(FIRST), r"reset\(seed=0\) returned one value of type ndarray; return two values"),
    (resets_to(None), r"reset\(seed=0\) returned None; return two values"),
    (resets_to((FIRST, {}, 3)), "returned 3 values; return two values"),
    (resets_to((FIRST, None)), "returned an info of type NoneType; return a dict"),
    (resets_to(([0.0], {})), "observation of reset.* is of type list, make it a numpy array"),
    (resets_to((np.zeros(2, np.float32), {})), r"it has shape \(2,\), make it \(1,\)"),
    (resets_to((np.zeros(1), {})), "it is of dtype float64, make it float32"),
    (resets_to((np.full(1, 9, np.float32), {})), r"entry \[0\] is 9.0, outside of \[0.0, 5.0\]"),
    (resets_to((np.full(1, np.nan, np.float32), {})), r"entry \[0\] is nan, outside of"),
    (resets_to((None, {})), "is of type NoneType"),
    (steps_to(lambda o, r, t, c, i: (o, r, t, i)), r"step\(\) at step 0 returned 4 values; return five values"),
    (steps_to(lambda o, r, t, c, i: None), r"step\(\) at step 0 returned None; return five values"),
    (steps_to(lambda o, r, t, c, i: (o, r, 0.0, c, i)), "terminated at step 0 is 0.0 of type float; make it True or False"),
    (steps_to(lambda o, r, t, c, i: (o, r, t, None, i)), "truncated at step 0 is None"),
    (steps_to(lambda o, r, t, c, i: (o, r, t, c, None)), "info at step 0 is of type NoneType; make it a dict"),
    (steps_to(lambda o, r, t, c, i: (o, None, t, c, i)), "scalar reward at step 0 is of type NoneType"),
    (steps_to(lambda o, r, t, c, i: (o + 6, r, t, c, i)), r"observation at step 0 .*entry \[0\] is 7.0"),
    (
        steps_to(lambda o, r, t, c, i: (o, 7.0, t, c, {REWARD_VECTOR: np.full(3, np.nan, np.float32)})),
        "is not finite for agents",
    ),
]


@pytest.mark.parametrize(("env", "message"), MISTAKES)
def test_common_mistakes_have_a_sentence_each(env, message):
    refused(env, message)


def test_number_of_agents_changes_while_it_plays():
    class Growing(GoodEnv):
        def step(self, action):
            self.n_agents = 3 + (self.count > 2)
            return super().step(action)

    refused(Growing(), "n_agents was 3 and is 4 after the episode that ended at step 4; agents are fixed")
    refused(Growing(), "n_agents was 3 and is 4 after 4 steps", n_steps=4, warn=False)


def test_errors_within_reset_are_not_blamed_on_its_arguments():
    class Broken(GoodEnv):
        def reset(self, *, seed=None, options=None):
            return len(3)

    with pytest.raises(TypeError, match="has no len"):
        check_represented_env(Broken())


def test_keys_of_observations():
    class Dicts(GoodEnv):
        observation_space = spaces.Dict({"x": GoodEnv.observation_space, "n": spaces.Discrete(6)})

        def reset(self, **kwargs):
            observation, info = super().reset(**kwargs)
            return {"x": observation, **self.more}, info

        def step(self, action):
            observation, *rest = super().step(action)
            return {"x": observation, **self.more}, *rest

    silent(variant(Dicts, more={"n": 2}))
    refused(variant(Dicts, more={}), r"keys \['n'\] are missing")
    refused(variant(Dicts, more={"n": 6}), r"keys \['n'\]")
    refused(variant(Dicts, more={"n": 2, "m": 3}), r"keys \['m'\]")


def test_spaces_that_cannot_be_used():
    refused(variant(action_space=spaces.Discrete(2, start=1)), r"action space is Discrete\(2, start=1\), it starts at 1")
    refused(variant(observation_space=spaces.Tuple([spaces.Discrete(2)])), "a Tuple cannot be used")
    refused(type("Spaceless", (GoodEnv,), {"action_space": None})(), "a NoneType cannot be used")


def test_checks_are_made_without_assert_statements():
    code = """
import pathlib, sys, types
# The package without what else it holds, which takes a while to import
sys.modules["sb3_rmdp"] = package = types.ModuleType("sb3_rmdp")
package.__path__ = [str(pathlib.Path("sb3_rmdp").resolve())]
from tests.envs.test_checker import MISTAKES
from sb3_rmdp.envs import check_represented_env
for env, message in MISTAKES:
    try:
        check_represented_env(env)
    except AssertionError:
        continue
    print("passed", type(env).__name__, message)
print("optimized", not __debug__)
"""
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-O", "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (done.stdout, done.returncode) == ("optimized True\n", 0), done.stderr
