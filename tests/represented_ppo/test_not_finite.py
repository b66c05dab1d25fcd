"""What is not finite stops a training at the step where it enters, is named, and ruins nothing."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.assignment import EMAssignment
from sb3_rmdp.common.finite_updates import check_update
from sb3_rmdp.represented_ppo.autograd_gradients import AutogradGradients
from sb3_rmdp.represented_ppo.block_gradients import BlockGradients
from sb3_rmdp.represented_ppo.manual_gradients import ManualGradients
from tests.probes import Spaces, vectorized

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float32)
SMALL: dict[str, Any] = dict(k=2, n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu", assignment="em")


class Sensor(gym.Env):
    """Two agents, episodes of five steps; ``wrong`` is seen once: at ``when`` resets or steps of the environment."""

    action_space = spaces.Discrete(2)
    n_agents = 2
    dictionary = False
    terminates = False
    size = 1.0

    def __init__(self, wrong: float = 0.0, when: int = 0, at: str = "step"):
        self.observation_space = spaces.Dict({"lidar": BOX, "door": spaces.Discrete(2)}) if self.dictionary else BOX
        self.wrong, self.when, self.at, self.counts = wrong, when, at, {"step": 0, "reset": 0}

    def observe(self, at: str) -> Any:
        self.counts[at] += 1
        x = np.array([0.1, self.wrong if at == self.at and self.counts[at] == self.when else 0.2], np.float32)
        return {"lidar": x, "door": 0} if self.dictionary else x

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.time = 0
        return self.observe("reset"), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        self.time += 1
        over = self.time == 5
        vector = np.array([action, 1 - action], np.float32) * np.float32(self.size * self.np_random.normal())
        return self.observe("step"), 0.5, over and self.terminates, over and not self.terminates, {"reward_vector": vector}


class Terminating(Sensor):
    terminates = True


class Keyed(Sensor):
    dictionary = True


def moments_of(model: RepresentedPPO) -> list[th.Tensor]:
    assert model.policy.normalizer is not None
    return [buffer.clone() for buffer in model.policy.normalizer.buffers()]


def state_of(model: RepresentedPPO) -> dict[str, th.Tensor]:
    state = {name: value.clone() for name, value in model.policy.state_dict().items()}
    for number, moments in model.policy.optimizer.state_dict()["state"].items():
        state |= {f"{name} of {number}": value.clone() for name, value in moments.items()}
    return state


def assert_same(one: dict[str, th.Tensor], other: dict[str, th.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(th.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize(
    ("cls", "when", "at", "message", "steps"),
    [
        (Sensor, 18, "step", r"env 1 observed {} at entry 1 of the observation \(num_timesteps=36\)", 17),
        (Sensor, 20, "step", r"env 1 observed {} at entry 1 of the last observation of its episode \(num_timesteps=40\)", 19),
        (Terminating, 20, "step", r"env 1 observed {} at entry 1 of the last observation of its episode", 19),
        (Sensor, 1, "reset", r"env 1 observed {} at entry 1 of the observation that its reset gave \(num_timesteps=0\)", 0),
        (Sensor, 4, "reset", r"env 1 observed {} at entry 1 of the observation that its reset gave \(num_timesteps=30\)", 14),
        (Keyed, 18, "step", r"env 1 observed {} at entry 1 of the observation, key 'lidar' \(num_timesteps=36\)", 17),
        (Keyed, 20, "step", r"env 1 observed {} at entry 1 of the last observation of its episode, key 'lidar'", 19),
    ],
)
def test_observations(wrong: float, cls: type[Sensor], when: int, at: str, message: str, steps: int) -> None:
    env = DummyVecEnv([cls, lambda: cls(wrong, when, at)])
    model = RepresentedPPO("MultiInputPolicy" if cls is Keyed else "MlpPolicy", env, **SMALL)
    with pytest.raises(ValueError, match=message.format(wrong) + ".*must be finite"):
        model.learn(200)
    assert model.num_timesteps == 2 * steps
    assert all(bool(value.isfinite().all()) for value in state_of(model).values())
    # It was seen once: training goes on with new episodes
    env.envs[1].wrong = 0.0
    model.learn(64, reset_num_timesteps=False)
    assert all(bool(value.isfinite().all()) for value in state_of(model).values())
    assert (model.rollout_buffer.observations if cls is not Keyed else model.rollout_buffer.observations["lidar"]).max() < 1.0


@pytest.mark.parametrize("wrong", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("cls", [Sensor, Keyed])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # SB3's normaliser says so
def test_observations_of_a_vec_normalize_whose_moments_stay(wrong: float, cls: type[Sensor]) -> None:
    env = VecNormalize(
        DummyVecEnv([cls, lambda: cls(wrong, 18)]), norm_reward=False, norm_obs_keys=["lidar"] if cls is Keyed else None
    )
    model = RepresentedPPO("MultiInputPolicy" if cls is Keyed else "MlpPolicy", env, **SMALL, normalize_observations=False)
    with pytest.raises(ValueError, match=rf"env 1 observed {wrong} at entry 1 of the observation"):
        model.learn(200)
    rms = env.obs_rms["lidar"] if cls is Keyed else env.obs_rms
    assert np.isfinite(rms.mean).all() and np.isfinite(rms.var).all()
    assert rms.count == pytest.approx(2 * 18, abs=1e-3)  # the reset and 17 steps


def test_an_observation_that_a_frozen_vec_normalize_would_clip() -> None:
    env = VecNormalize(DummyVecEnv([lambda: Sensor(math.inf, 18)]), norm_reward=False, training=False)
    model = RepresentedPPO("MlpPolicy", env, **SMALL)
    with pytest.raises(ValueError, match="env 0 observed inf at entry 1"):
        model.learn(200)


@pytest.mark.parametrize("wrong", [math.nan, math.inf], ids=str)
def test_observations_that_a_service_hands_in(wrong: float) -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(Sensor, 2), **SMALL)
    seen = np.zeros((3, 2), np.float32)
    seen[1, 0] = wrong
    for predict in (model.predict, model.policy.predict, model.representative(1).predict):
        with pytest.raises(ValueError, match=rf"observation\[1, 0\] is {wrong}: observations must be finite"):
            predict(seen, deterministic=True)
        with pytest.raises(ValueError, match=rf"observation\[0\] is {wrong}"):
            predict(seen[1])
    keyed = RepresentedPPO("MultiInputPolicy", vectorized(Keyed, 2), **SMALL)
    with pytest.raises(ValueError, match=rf"lidar\[0\] is {wrong}"):
        keyed.predict({"lidar": seen[1], "door": 0})


@pytest.mark.parametrize(
    "actions", [spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(3), spaces.MultiDiscrete([2, 2])], ids=str
)
@pytest.mark.parametrize("when", ["before", "within"])
def test_parameters(actions: spaces.Space, when: str) -> None:
    observations = spaces.Box(-1.0, 1.0, (3,), np.float32)
    taken: list[Any] = []

    class Watched(Spaces):
        def step(self, action: Any) -> Any:
            taken.append(np.asarray(action))
            return super().step(action)

    model = RepresentedPPO("MlpPolicy", vectorized(lambda: Watched(observations, actions), 2), **SMALL)

    def ruin() -> None:
        model.policy.action_net.bias.data[1, 0] = math.nan

    if when == "before":
        ruin()
    calls = []

    def callback(*_: Any) -> bool:
        calls.append(0)
        if len(calls) == 3:
            ruin()
        return True

    with pytest.raises(ValueError, match=r"parameter action_net.bias of the policy is not finite.*take an earlier checkpoint"):
        model.learn(64, callback)
    assert len(calls) == (0 if when == "before" else 3)
    assert all(np.isfinite(action).all() for action in taken)


@pytest.mark.parametrize("gradients", [ManualGradients, AutogradGradients])
@pytest.mark.parametrize("size", [1e20, 1e25, 1e36])
def test_rewards_too_large_for_their_squares(gradients: type, size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ManualGradients, "fits", staticmethod(lambda model: gradients is ManualGradients))

    class Huge(Sensor):
        pass

    model = RepresentedPPO("MlpPolicy", vectorized(Huge, 2), **SMALL).learn(64)
    before = state_of(model)
    Huge.size = size
    with pytest.raises(ValueError, match=r"returns are as large as .*; divide rewards by a constant"):
        model.learn(64, reset_num_timesteps=False)
    assert_same(state_of(model), before)


@pytest.mark.parametrize("gradients", [ManualGradients, AutogradGradients])
@pytest.mark.parametrize("name", ["values", "log_probs"])
def test_values_and_log_probabilities(gradients: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ManualGradients, "fits", staticmethod(lambda model: gradients is ManualGradients))
    model = RepresentedPPO("MlpPolicy", vectorized(Sensor, 2), **SMALL)
    evaluate = model.policy.evaluate_actions

    def wrong(*args: Any) -> Any:
        values, log_probs, entropy = evaluate(*args)
        (values if name == "values" else log_probs)[5] = math.nan
        return values, log_probs, entropy

    before = state_of(model)
    model.policy.evaluate_actions = wrong
    what = "the critic's values" if name == "values" else "log probabilities of actions"
    with pytest.raises(ValueError, match=f"{what} of representative 1 in step 2 of env 1 are"):
        model.learn(32)
    assert_same(state_of(model), before)


@pytest.mark.parametrize("gradients", [ManualGradients, AutogradGradients])
@pytest.mark.parametrize("parameter", ["value_net.weight", "action_net.weight", "mlp_extractor.policy_net.0.bias"])
def test_what_breaks_within_an_update(gradients: type, parameter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter becomes nan after the first step: written-out gradients of the clipped objective must not turn it into 0."""
    monkeypatch.setattr(ManualGradients, "fits", staticmethod(lambda model: gradients is ManualGradients))
    model = RepresentedPPO("MlpPolicy", vectorized(Sensor, 2), **SMALL).learn(32)
    step = gradients.step

    def wrong(self: Any, max_norm: float) -> None:
        step(self, max_norm)
        model.policy.get_parameter(parameter).data.view(-1)[0] = math.nan

    before = state_of(model)
    monkeypatch.setattr(gradients, "step", wrong)
    if parameter == "value_net.weight":
        message = "value_loss of the critic of all representatives is nan in minibatch 1 of the update"
    elif gradients is ManualGradients:
        message = "policy_gradient_loss of the representatives' policies is nan in minibatch 1 of the update"
    else:
        message = f"parameter {parameter} of the policy is not finite"  # PyTorch does not get as far as the loss
    with pytest.raises(ValueError, match=f"{message}.*the policy is as it was before this update"):
        model.learn(32, reset_num_timesteps=False)
    assert_same(state_of(model), before)
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in model.policy.parameters())


def test_written_out_gradients_of_advantages_that_are_no_numbers_are_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    actor_gradients = BlockGradients.actor_gradients

    def watched(self: BlockGradients, epoch: Any, *args: Any) -> Any:
        epoch.advantages[:] = math.nan
        entropy = actor_gradients(self, epoch, *args)
        found.append(self._head[2].clone())
        return entropy

    monkeypatch.setattr(BlockGradients, "actor_gradients", watched)
    model = RepresentedPPO("MlpPolicy", vectorized(Sensor, 2), **SMALL)
    with pytest.raises(ValueError, match="policy_gradient_loss of the representatives' policies is nan in minibatch 0"):
        model.learn(32)
    assert found and all(bool(gradient.isnan().all()) for gradient in found)


def test_divergences_that_are_no_numbers_stop_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(Sensor, 2), **SMALL, target_kl=0.5).learn(32)
    before = state_of(model)
    steps = []
    monkeypatch.setattr(ManualGradients, "approx_kl", lambda self: th.tensor([0.0, math.nan]))
    monkeypatch.setattr(ManualGradients, "step", lambda self, max_norm: steps.append(1))
    model.learn(32, reset_num_timesteps=False)
    assert not steps
    assert {name for name, value in state_of(model).items() if not th.equal(value, before[name])} <= {
        f"normalizer._moments.0.{name}" for name in ("mean", "var", "count")
    }


def test_an_assignment_whose_loss_is_no_number() -> None:
    class Wrong(EMAssignment):
        needs_agent_advantages = True

        def loss(self, ratio: th.Tensor, *args: Any) -> th.Tensor:
            return ratio.sum() * math.nan

    model = RepresentedPPO("MlpPolicy", vectorized(Sensor, 2), **(SMALL | dict(assignment=Wrong)))
    before = state_of(model)
    with pytest.raises(ValueError, match="loss with that of the assignment is nan"):
        model.learn(32)
    assert_same(state_of(model), before)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (0, "policy_gradient_loss of the representatives' policies is inf in minibatch 1"),
        (1, "value_loss of the critic of all representatives is inf in minibatch 1"),
        (2, "entropy_loss of the representatives' policies is inf in minibatch 1"),
        (5, "loss with that of the assignment is inf in minibatch 1"),
        (6, "the gradient of the representatives' policies has the norm inf"),
        (7, "the gradient of the critic of all representatives has the norm inf"),
        (3, None),  # a representative that has left all that it did may have an infinite divergence
    ],
)
def test_losses_and_gradients_are_named(column: int, message: str | None) -> None:
    buffer = RepresentedPPO("MlpPolicy", vectorized(Sensor, 2), **SMALL).rollout_buffer
    logs, norms = th.ones(3, 6), th.ones(3, 2)
    (logs if column < 6 else norms)[1, column % 6] = math.inf
    if message is None:
        assert check_update(logs, norms, buffer)["approx_kl"] == math.inf
        return
    with pytest.raises(ValueError, match=f"{message}.*: lower learning_rate"):
        check_update(logs, norms, buffer)
    buffer.returns[3, 1, 0] = 1e18
    with pytest.raises(ValueError, match=rf"{message}.*: returns are as large as 1e\+18.*divide rewards"):
        check_update(logs, norms, buffer)
