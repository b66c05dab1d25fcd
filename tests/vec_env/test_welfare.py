"""Evaluations of SB3 report social welfare: on a game whose welfare is known, and where other means are wrong."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecMonitor, VecNormalize

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.vec_env import RepresentedActions, WelfareVecEnv, insert_welfare
from tests.probes import Waiting

K = 3


def watched() -> Monitor:
    return Monitor(Waiting())


def make_env(kind: type[VecEnv], n_envs: int, normalize: bool, monitor: bool = True) -> VecEnv:
    kwargs = {"start_method": "fork"} if kind is SubprocVecEnv else {}
    env = kind([watched if monitor else Waiting] * n_envs, **kwargs)  # type: ignore[call-arg]
    return VecNormalize(env, norm_reward=False) if normalize else env


def known_model(normalize: bool = False, kind: type[VecEnv] = DummyVecEnv) -> RepresentedPPO:
    """Representative j takes action j, whatever it sees, and learns nothing."""
    env = make_env(kind, K, normalize)
    fixed = dict(representatives=list(Waiting.representatives))
    kwargs: dict[str, Any] = dict(assignment="fixed", assignment_kwargs=fixed, n_steps=8, batch_size=8, n_epochs=1, seed=0)
    model = RepresentedPPO("MlpPolicy", env, k=K, learning_rate=0.0, device="cpu", **kwargs)
    with th.no_grad():
        model.policy.action_net.weight.zero_()
        model.policy.action_net.bias.copy_(100.0 * th.eye(K))
    return model


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
@pytest.mark.parametrize("n_envs", [1, K, K + 1])
def test_the_mean_reward_of_eval_callback_is_welfare(kind: type[VecEnv], n_envs: int, normalize: bool, tmp_path: Path) -> None:
    model = known_model(normalize, kind)
    eval_env = make_env(kind, n_envs, normalize)
    callback = EvalCallback(
        eval_env, n_eval_episodes=4, eval_freq=5, log_path=str(tmp_path), best_model_save_path=str(tmp_path), verbose=0
    )
    model.learn(2 * 8 * K, callback=callback)
    model.learn(8 * K, callback=callback, reset_num_timesteps=False)  # a second time changes nothing
    with np.load(tmp_path / "evaluations.npz") as written:
        # 4 episodes are no multiple of k
        assert written["results"].shape[1] == 2 * K
        np.testing.assert_allclose(written["results"].mean(axis=1), Waiting.welfare, rtol=1e-6)
        assert written["ep_lengths"].mean() == 2.0
    assert callback.best_mean_reward == callback.last_mean_reward == pytest.approx(Waiting.welfare)
    best = RepresentedPPO.load(tmp_path / "best_model")
    assert evaluate_welfare(best, eval_env, 1).social_welfare == pytest.approx(Waiting.welfare)
    for env in (eval_env, model.get_env()):
        assert env is not None
        env.close()


@pytest.mark.parametrize("n_envs", [1, K, K + 1])
def test_other_means_are_wrong(n_envs: int) -> None:
    model = known_model()
    env = make_env(DummyVecEnv, n_envs, normalize=False)
    assert evaluate_policy(model, env, 2 * K)[0] == pytest.approx(23 / 6)
    assert evaluate_policy(model.representative(0), env, 2)[0] == pytest.approx(16 / 6)
    welfare_env = WelfareVecEnv(env)
    assert evaluate_policy(model, welfare_env, 1)[0] in (3.0, 9.0)  # one episode: k times what it adds
    assert evaluate_policy(model, welfare_env, 2 * K)[0] == pytest.approx(Waiting.welfare)
    # Actions of one representative, and evaluate_welfare, see rewards as they are
    assert evaluate_policy(model.representative(0), welfare_env, 2)[0] == pytest.approx(16 / 6)
    assert evaluate_welfare(model, welfare_env, 2).social_welfare == pytest.approx(Waiting.welfare)


@pytest.mark.parametrize("monitor", ["none", "below", "above"])
def test_with_and_without_a_monitor(monitor: str) -> None:
    env = WelfareVecEnv(make_env(DummyVecEnv, 2, normalize=False, monitor=monitor == "below"))
    wrapped = VecMonitor(env) if monitor == "above" else env
    assert evaluate_policy(known_model(), wrapped, 2 * K, warn=False)[0] == pytest.approx(Waiting.welfare)


def test_an_assignment_that_has_moved_counts_from_the_next_evaluation() -> None:
    model = known_model()
    env = WelfareVecEnv(make_env(DummyVecEnv, 2, normalize=False))
    assert evaluate_policy(model, env, K)[0] == pytest.approx(Waiting.welfare)
    model.assignment = type(model.assignment)(6, 3, representatives=[2] * 6)
    assert evaluate_policy(model, env, K)[0] == pytest.approx(3 * 9 / 6)


def test_evaluations_within_other_callbacks_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    inner = EvalCallback(make_env(DummyVecEnv, 1, False), n_eval_episodes=1, eval_freq=1, verbose=0)
    nested: BaseCallback = CallbackList([EveryNTimesteps(8, CallbackList([inner]))])
    model = known_model()
    model.verbose = 1
    model.learn(8 * K, callback=[nested], log_interval=None)
    assert inner.n_eval_episodes == K and inner.last_mean_reward == pytest.approx(Waiting.welfare)
    assert "EvalCallback: 3 episodes per evaluation in the place of 1" in capsys.readouterr().out


def test_wrappers_stay_where_they_are() -> None:
    base = make_env(DummyVecEnv, 2, normalize=True)
    assert insert_welfare(base) is base and isinstance(base, VecNormalize)
    assert isinstance(base.venv, WelfareVecEnv) and isinstance(base.venv.venv, DummyVecEnv)
    assert insert_welfare(base) is base and isinstance(base.venv.venv, DummyVecEnv)
    bare = make_env(DummyVecEnv, 2, normalize=False)
    assert isinstance(insert_welfare(bare), WelfareVecEnv)


def test_tagged_actions_are_arrays_like_any_other() -> None:
    model = known_model()
    obs = np.zeros((4, 2), np.float32)
    actions, _ = model.predict(obs, deterministic=True)
    assert isinstance(actions, RepresentedActions) and actions.tolist() == [0, 2, 1, 0]
    assert actions.representatives is not None and actions.representatives.tolist() == [0, 2, 1, 0]
    plain = [actions + 1, actions.sum(), np.clip(actions, 0, 1), pickle.loads(pickle.dumps(actions))]
    assert not any(isinstance(value, RepresentedActions) for value in plain)
    assert actions[:2].representatives is None and copy.deepcopy(actions).representatives is None
    # Nothing of this where somebody asks for one action, or for one representative
    assert type(model.predict(obs[0])[0]) is np.ndarray and type(model.predict(obs, representative=1)[0]) is np.ndarray
