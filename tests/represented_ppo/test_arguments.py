"""One table of what arguments may be: wrong ones are named, with their value, before anything is stepped."""

from __future__ import annotations

import inspect
import io
import itertools
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.envs.registration import registry
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.callbacks import AnnealCallback, KeepBestCallback, WelfareEvalCallback
from sb3_rmdp.common.model_arguments import ARGUMENTS
from sb3_rmdp.vec_env import make_represented_vec_env
from tests.probes import Drift, KnownAssignment, vectorized

SMALL: dict[str, Any] = dict(k=2, n_steps=16, batch_size=8, n_epochs=1, seed=0, device="cpu")
NAN, INF = float("nan"), float("inf")

#: Wrong values of any argument that is a number
NO_NUMBERS: list[Any] = [NAN, INF, -INF, "3", True, None, 1j, [1], np.array([1.0, 2.0]), 10**30, 10**400, object()]

#: Wrong values of each argument beside those
WRONG: dict[str, list[Any]] = {
    "learning_rate": [*NO_NUMBERS, -1e-3, lambda p: NAN, lambda p: -p, lambda: 1.0, lambda p: None, nn.Linear(1, 1)],
    "n_steps": [*NO_NUMBERS, 0, -1, 1.5],
    "batch_size": [*NO_NUMBERS, 0, 1, 1.5],
    "n_epochs": [*NO_NUMBERS, 0, 1.5],
    "gamma": [*NO_NUMBERS, -0.1, 1.1],
    "gae_lambda": [*NO_NUMBERS, -0.1, 1.1],
    "clip_range": [*NO_NUMBERS, -0.1, lambda p: INF],
    "clip_range_vf": [*(value for value in NO_NUMBERS if value is not None), 0.0, -1, lambda p: -1],
    "normalize_advantage": [NAN, "batch", None, 2, [True]],
    "ent_coef": [*NO_NUMBERS, "lin_0.1", lambda p: "x"],
    "vf_coef": [*NO_NUMBERS, -0.5],
    "max_grad_norm": [NAN, -INF, "3", True, None, 0, -1],
    "use_sde": ["yes", None, 2, NAN],
    "sde_sample_freq": [*NO_NUMBERS, -2, 0.5],
    "rollout_buffer_class": [5, dict, "buffer"],
    "rollout_buffer_kwargs": [5, {"gamma": 0.5}, {"unknown": 1}, {1: 2}],
    "target_kl": [NAN, INF, "x", True, -0.1],
    "stats_window_size": [*NO_NUMBERS, 0, 2.5],
    "tensorboard_log": [5, "a\0b", True],
    "policy": ["MlpPolice", "CnnPolicy", "MultiInputPolicy", ActorCriticPolicy, None, 5, nn.Module()],
    "policy_kwargs": [5, "dict()", {1: 2}],
    "verbose": [NAN, "1", None, -1, 0.5],
    "seed": [NAN, "1", True, -1, 2**32, 0.5],
    "device": ["gpu", "cuda:99999" if th.cuda.is_available() else "cpu:x", "meta", None, 1.5, True],
    "k": [*(value for value in NO_NUMBERS if value is not None), 0, 7, 2.0],
    "assignment": ["ems", None, 5, nn.Module],
    "assignment_kwargs": [5, {"mixxing": 0.5}, {1: 2}],
    "welfare": ["nashh", None, 5, ["nash"]],
    "welfare_kwargs": [5, {"shifft": 0.5}, "x"],
    "normalize_observations": ["x", None, NAN, 2],
    "critic_rank": [NAN, "2", True, 0, 7, 1.5],
    "env": [5, "NoSuch-v0", None, gym.Env],
}


def shown(value: Any) -> str:
    """A part of a value that must be in an error; of functions and objects the kind."""
    if callable(value) or isinstance(value, nn.Module) or type(value) is object:
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, dict):
        return str(next(iter(value)))
    if isinstance(value, int) and value > 10**300:
        return ""
    return repr(value)


def test_every_argument_has_a_rule_and_is_tried() -> None:
    names = set(inspect.signature(RepresentedPPO).parameters) - {"_init_setup_model"}
    assert names == set(WRONG)
    assert names - set(ARGUMENTS) == {"policy", "env", "k", "assignment", "welfare"}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_wrong_arguments_are_named_before_a_step(name: str, value: Any) -> None:
    class Untouched(KnownAssignment):
        def step(self, action: Any) -> Any:
            raise AssertionError("stepped")

    with pytest.raises(ValueError) as error:
        RepresentedPPO(**(dict(policy="MlpPolicy", env=Untouched()) | SMALL | {name: value}))
    assert name in str(error.value) and (shown(value) in str(error.value) or name == "policy") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (name, value)
            for name in ("gamma", "gae_lambda")
            for value in (1, 0, np.float32(0.5), th.tensor(0.5), np.array(0.5))
        ],
        *[(name, np.int64(8)) for name in ("n_steps", "batch_size", "n_epochs", "stats_window_size", "seed", "verbose")],
        *[("clip_range", value) for value in (np.float64(0.1), lambda p: 0.1 * p, 1)],
        *[("learning_rate", value) for value in (0, 0.0, lambda p: np.float32(1e-3 * p))],
        ("ent_coef", -0.01),
        ("max_grad_norm", INF),
        ("target_kl", 0.01),
        ("use_sde", 0),
        ("verbose", False),
        ("k", np.int8(2)),
        ("seed", None),
        ("device", th.device("cpu")),
        ("normalize_advantage", np.bool_(True)),
        ("policy_kwargs", dict(net_arch=dict(pi=(8,), vf=[np.int64(8)]), activation_fn=nn.ReLU, log_std_init=-1)),
        ("policy_kwargs", dict(optimizer_class=th.optim.SGD, optimizer_kwargs=dict(momentum=0.5))),
        ("policy_kwargs", None),
        ("assignment_kwargs", {}),
    ],
)
def test_what_was_accepted_stays_accepted(name: str, value: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
        model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 2), **(SMALL | {name: value})).learn(64)
    assert all(bool(parameter.isfinite().all()) for parameter in model.policy.parameters())
    with io.BytesIO() as file:
        model.save(file)


def test_folders_may_be_paths(tmp_path: Any) -> None:
    model = RepresentedPPO("MlpPolicy", KnownAssignment(), tensorboard_log=tmp_path / "logs", **SMALL).learn(32)
    assert model.tensorboard_log == str(tmp_path / "logs") and list((tmp_path / "logs").iterdir())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"net_arc": [8]}, r"has \['net_arc'\].*did you mean 'net_arch'"),
        ({"net_arch": [0]}, r"net_arch=\[0\]: 0 is no number of units"),
        ({"net_arch": [8.0]}, "net_arch.*8.0"),
        ({"net_arch": 8}, "net_arch=8: give a list"),
        ({"net_arch": dict(pi=[8], vff=[8])}, "'vff'.*did you mean 'vf'"),
        ({"net_arch": [10**30]}, "net_arch"),
        ({"net_arch": []}, "critic without a hidden layer"),
        ({"activation_fn": nn.Tanh()}, r"activation_fn=Tanh\(\): give a class"),
        ({"activation_fn": "tanh"}, "activation_fn='tanh'"),
        ({"ortho_init": "x"}, "ortho_init='x'"),
        ({"log_std_init": NAN}, "log_std_init=nan"),
        ({"log_std_init": 1e9}, "log_std_init=1000000000.0"),
        ({"optimizer_class": "adam"}, "optimizer_class='adam'"),
        ({"optimizer_kwargs": dict(lr=1.0)}, r"optimizer_kwargs has \['lr'\]"),
        ({"optimizer_kwargs": dict(epss=1.0)}, "did you mean 'eps'"),
        ({"features_extractor_class": dict}, "features_extractor_class"),
        ({"features_extractor_kwargs": dict(features=3)}, "features"),
        ({"squash_output": True}, "squash_output"),
        ({"use_sde": True}, r"has \['use_sde'\]: these are arguments of the model"),
        ({"k": 3}, r"policy_kwargs has \['k'\]"),
    ],
)
def test_arguments_of_the_policy(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepresentedPPO("MlpPolicy", KnownAssignment(), policy_kwargs=kwargs, **SMALL)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gamma": NAN}, "gamma=nan: it is not finite, give a number from 0 to 1"),
        ({"n_epochs": 0}, "n_epochs=0"),
        ({"clip_range": NAN}, "clip_range=nan"),
        ({"stats_window_size": 0}, "stats_window_size=0"),
        ({"welfare": "nashh"}, "did you mean 'nash'"),
        ({"assignment_kwargs": {"mixing": NAN}}, "mixing=nan"),
        ({"device": "gpu"}, "device='gpu'"),
        ({"gama": 0.5}, "'gama' is no argument of a model that load can change: did you mean 'gamma'"),
        ({"policy": "MlpPolicy"}, "policy"),
    ],
)
def test_what_load_changes_is_looked_at(kwargs: dict[str, Any], message: str) -> None:
    file = io.BytesIO()
    RepresentedPPO("MlpPolicy", KnownAssignment(), assignment="em", **SMALL).save(file)
    file.seek(0)
    with pytest.raises(ValueError, match=message):
        RepresentedPPO.load(file, **({"device": "cpu"} | kwargs))


def test_load_changes_what_it_is_told() -> None:
    file = io.BytesIO()
    RepresentedPPO("MlpPolicy", KnownAssignment(), **SMALL).save(file)
    file.seek(0)
    model = RepresentedPPO.load(file, device="cpu", gamma=np.float32(0.5), stats_window_size=7, clip_range=0.3)
    assert (model.gamma, type(model.gamma), model._stats_window_size) == (0.5, float, 7)
    assert model.clip_range(1.0) == 0.3  # type: ignore[operator]


@pytest.mark.parametrize("name", ["learning_rate", "clip_range", "clip_range_vf", "ent_coef"])
@pytest.mark.parametrize("late", [NAN, INF, -1e9, "x", None])
def test_a_schedule_that_goes_wrong_is_found_when_it_does(name: str, late: Any) -> None:
    schedule = lambda remaining: 1e-3 if remaining > 0.25 else late  # noqa: E731
    model = RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 2), **(SMALL | {name: schedule}))
    before = model.policy.action_net.weight.clone()
    with pytest.raises(ValueError, match=f"{name}=.*at progress_remaining=0 the schedule returns {late!r}"):
        model.learn(64)
    assert model._n_updates == 1 and bool(model.policy.action_net.weight.isfinite().all())
    assert not th.equal(before, model.policy.action_net.weight)


def test_a_rollout_beyond_the_end_of_the_training_has_no_negative_learning_rate() -> None:
    model = RepresentedPPO(
        "MlpPolicy", vectorized(KnownAssignment, 2), learning_rate=lambda remaining: 1e-3 * remaining, **SMALL
    )
    model.learn(40)  # two rollouts of 32
    assert model.num_timesteps == 64 and model._current_progress_remaining == 0.0
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        *[({"total_timesteps": value}, "total_timesteps=") for value in (NAN, INF, -1, "100", None, True, 10**30)],
        *[({"log_interval": value}, "log_interval=") for value in (0, 1.5, "1", NAN)],
        ({"callback": 5}, "callback=5"),
        ({"callback": [5]}, "callback=5"),
        ({"callback": KeepBestCallback}, "callback=.*KeepBestCallback"),
        ({"tb_log_name": 5}, "tb_log_name=5"),
        ({"reset_num_timesteps": "no"}, "reset_num_timesteps='no'"),
        ({"progress_bar": None}, "progress_bar=None"),
    ],
)
def test_arguments_of_learn(kwargs: dict[str, Any], message: str) -> None:
    model = RepresentedPPO("MlpPolicy", KnownAssignment(), **SMALL)
    with pytest.raises(ValueError, match=message):
        model.learn(**({"total_timesteps": 32} | kwargs))
    assert model.num_timesteps == 0


def test_timesteps_may_be_written_as_a_float() -> None:
    assert RepresentedPPO("MlpPolicy", KnownAssignment(), **SMALL).learn(3.2e1, log_interval=None).num_timesteps == 32  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, 1.5, NAN, "3", True, None, 10**30])
def test_counts_of_evaluations_and_callbacks(value: Any) -> None:
    model = RepresentedPPO("MlpPolicy", KnownAssignment(), **SMALL)
    with pytest.raises(ValueError, match="n_eval_episodes="):
        evaluate_welfare(model, KnownAssignment(), value)
    with pytest.raises(ValueError, match="n_eval_episodes="):
        WelfareEvalCallback(KnownAssignment(), n_eval_episodes=value)
    with pytest.raises(ValueError, match="eval_freq="):
        WelfareEvalCallback(KnownAssignment(), eval_freq=value)
    with pytest.raises(ValueError, match="window="):
        KeepBestCallback(value)
    with pytest.raises(ValueError, match="attribute=5"):
        AnnealCallback(5, 0.0, 1.0)  # type: ignore[arg-type]


@pytest.fixture
def counted() -> Any:
    """An environment of six agents that counts how often it is made."""

    class Counted(KnownAssignment):
        made = 0

        def __init__(self) -> None:
            Counted.made += 1

    gym.register("Counted-v0", Counted)
    yield Counted
    del registry["Counted-v0"]


def test_one_environment_tells_that_k_is_too_large(counted: Any) -> None:
    for k in (7, 30_000, 10**9, 10**30):
        with pytest.raises(ValueError, match=f"k={k} representatives for n_agents=6: choose k from 1 to 6"):
            RepresentedPPO("MlpPolicy", "Counted-v0", **(SMALL | dict(k=k)))
        with pytest.raises(ValueError, match=f"k={k} representatives for n_agents=6"):
            RepresentedPPO("MlpPolicy", gym.make("Counted-v0"), **(SMALL | dict(k=k)))
    assert counted.made == 8
    with pytest.raises(ValueError, match="no attribute n_agents"):
        RepresentedPPO("MlpPolicy", "CartPole-v1", **(SMALL | dict(k=10**9)))
    for name, value in itertools.product(("k", "n_envs"), (10**9, 10**30, True)):
        with pytest.raises(ValueError, match=f"{name}={value} does not do; give an integer of at least 1 and at most 65536"):
            make_represented_vec_env("Counted-v0", **({"k": 2} | {name: value}))


@pytest.mark.parametrize("n_agents", [0, -1, 2.5, "six", True, NAN, None])
def test_numbers_of_agents_that_are_none(n_agents: Any) -> None:
    class Wrong(Drift):
        pass

    Wrong.n_agents = n_agents
    for env in (Wrong(), vectorized(Wrong, 2)):
        with pytest.raises(ValueError, match="n_agents"):
            RepresentedPPO("MlpPolicy", env, **SMALL)
