"""Infos of a batch are a list of dicts to everybody who looks at them, and next to nothing to those who do not."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.population import reward_vectors
from sb3_rmdp.envs import REWARD_FEATURES, REWARD_VECTOR
from sb3_rmdp.vec_env import BatchInfos
from tests.probes import TwoGroups


def counting_infos() -> tuple[BatchInfos, list[int]]:
    built: list[int] = []

    def build(i: int) -> dict[str, Any]:
        built.append(i)
        return {"index": i}

    return BatchInfos(np.arange(6, dtype=np.float32).reshape(3, 2), build), built


def test_infos_are_made_once_and_when_looked_at() -> None:
    infos, built = counting_infos()
    assert len(infos) == 3
    assert reward_vectors(infos, 2) is infos.reward_vectors is not None and not built
    infos[1]["terminal_observation"] = "normalised"
    assert infos[1] is infos[-2] is infos[np.int64(1)] and built == [1]
    assert infos[1][REWARD_VECTOR].tolist() == [2.0, 3.0] and infos.looked_at([0]) == [0, 1]
    everything = infos[:]
    assert type(everything) is list and everything[1] is infos[1] and sorted(built) == [0, 1, 2]
    assert [info["index"] for info in infos[::-1]] == [2, 1, 0] and [info["index"] for info in infos] == [0, 1, 2]
    for index in (3, -4):
        with pytest.raises(IndexError, match="infos of 3 environments"):
            infos[index]
    for clone in (copy.deepcopy(infos), pickle.loads(pickle.dumps(infos))):
        assert type(clone) is list and clone[1]["terminal_observation"] == "normalised"
        assert clone[1] is not infos[1]


def test_rewards_that_a_wrapper_changes_count() -> None:
    infos, _ = counting_infos()
    infos[0][REWARD_VECTOR] *= 10  # in place
    assert reward_vectors(infos, 2).tolist() == [[0.0, 10.0], [2.0, 3.0], [4.0, 5.0]]
    infos[1][REWARD_VECTOR] = -infos[1][REWARD_VECTOR]
    assert reward_vectors(infos, 2).tolist() == [[0.0, 10.0], [-2.0, -3.0], [4.0, 5.0]]
    infos[2] = {REWARD_VECTOR: [7, 8]}
    assert reward_vectors(infos, 2)[2].tolist() == [7.0, 8.0] and infos[2] == {REWARD_VECTOR: [7, 8]}
    del infos[2][REWARD_VECTOR]
    with pytest.raises(ValueError, match="env 2 gave no reward vector"):
        reward_vectors(infos, 2)


def test_features_stand_under_a_key_of_their_own() -> None:
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    infos = BatchInfos(features, lambda i: {"index": i}, REWARD_FEATURES)
    assert (infos.key, counting_infos()[0].key) == (REWARD_FEATURES, REWARD_VECTOR)
    assert set(infos[1]) == {"index", REWARD_FEATURES} and infos[1][REWARD_FEATURES].tolist() == [2.0, 3.0]
    assert infos.reward_vectors is features
    infos[1][REWARD_VECTOR] = np.ones(5)  # of no account here
    assert infos.reward_vectors is features
    infos[2][REWARD_FEATURES] = np.ones(2)
    assert infos.reward_vectors is None


def test_arrays_of_rewards_are_checked() -> None:
    infos, _ = counting_infos()
    with pytest.raises(ValueError, match=r"env 0 gave one of shape \(2,\).* shape \(3,\)"):
        reward_vectors(infos, 3)
    infos[2][REWARD_VECTOR][1] = np.nan
    with pytest.raises(ValueError, match="env 2 gave agent 1 the reward nan"):
        reward_vectors(infos, 2)


def test_what_is_put_into_infos_reaches_the_logs() -> None:
    env = DummyVecEnv([TwoGroups] * 3)
    model = RepresentedPPO("MlpPolicy", env, k=3, device="cpu")
    model._setup_learn(1)
    infos, built = counting_infos()
    infos[2]["is_success"] = True  # of no episode that ended
    infos[0].update(is_success=False, episode={"r": 1.0, "l": 1, "t": 0.0})
    model._update_info_buffer(infos, np.array([True, False, False]))
    assert list(model.ep_success_buffer or []) == [False] and [e["r"] for e in model.ep_info_buffer or []] == [1.0]
    assert sorted(built) == [0, 2]
    model._update_info_buffer(list(infos), np.array([True, False, True]))
    assert list(model.ep_success_buffer or []) == [False, False, True]
