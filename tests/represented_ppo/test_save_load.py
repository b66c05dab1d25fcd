"""Saving and loading: nothing is forgotten, nothing is half written."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rmdp import RepresentedPPO, __version__, evaluate_welfare
from sb3_rmdp.common.assignment import ASSIGNMENTS, RandomAssignment
from tests.probes import Drift, KnownAssignment, time_limited, vectorized

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu")
OBS = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
FIXED = dict(representatives=[2, 2, 1, 0, 0, 1])


def known(n_envs: int = 3) -> Any:
    return vectorized(KnownAssignment, n_envs)


def trained(assignment: str = "em", n_envs: int = 3, **kwargs: Any) -> RepresentedPPO:
    assignment_kwargs = FIXED if assignment == "fixed" else {}
    model = RepresentedPPO(
        "MlpPolicy", known(n_envs), k=3, assignment=assignment, assignment_kwargs=assignment_kwargs, **(SMALL | kwargs)
    )
    return model.learn(6 * 16 * n_envs)


def assert_equal_states(one: Any, other: Any, name: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key, value in one.items():
            assert_equal_states(value, other[key], f"{name}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), name
        for i, value in enumerate(one):
            assert_equal_states(value, other[i], f"{name}[{i}]")
    elif isinstance(one, th.Tensor):
        assert th.equal(one, other), name
    else:
        assert one == other, name


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_everything_survives(assignment: str, tmp_path: Path) -> None:
    model = trained(assignment)
    model.save(tmp_path / "model.zip")
    loaded = RepresentedPPO.load(tmp_path / "model")
    for representative in range(3):
        expected, _ = model.predict(OBS, representative=representative, deterministic=True)
        np.testing.assert_array_equal(loaded.predict(OBS, representative=representative, deterministic=True)[0], expected)
    np.testing.assert_array_equal(loaded.assignment.probabilities, model.assignment.probabilities)
    assert_equal_states(loaded.get_parameters(), model.get_parameters())
    assert (loaded.k, loaded.n_agents, loaded.population_id) == (3, 6, None)
    assert [loaded.representative_of(agent) for agent in range(6)] == model.assignment.representatives.tolist()
    if assignment == "em":
        assert int(loaded.assignment.n_updates) == 6 and float(loaded.assignment.q_weight.min()) > 0
    if assignment == "end_to_end":
        assert loaded.assignment.optimizer is not None and loaded.assignment.optimizer.state_dict()["state"]


@pytest.mark.parametrize("assignment", ["em", "end_to_end", "episodes"])
@pytest.mark.parametrize("n_envs", [1, 3, 6])
def test_training_goes_on_in_any_number_of_environments(assignment: str, n_envs: int, tmp_path: Path) -> None:
    model = trained(assignment)
    model.save(tmp_path / "model")
    loaded = RepresentedPPO.load(tmp_path / "model", env=known(n_envs))
    before = loaded.num_timesteps
    loaded.learn(2 * 16 * n_envs, reset_num_timesteps=False)
    assert loaded.num_timesteps == before + 2 * 16 * n_envs
    assert loaded.assignment.representatives.shape == (6,)


def test_training_goes_on_from_fresh_episodes_even_if_no_reset_is_forced(tmp_path: Path) -> None:
    trained().save(tmp_path / "model")
    loaded = RepresentedPPO.load(tmp_path / "model", env=known(), force_reset=False)
    assert loaded.learn(48, reset_num_timesteps=False).num_timesteps == 6 * 48 + 48


def test_a_loaded_model_acts_on_raw_observations(tmp_path: Path) -> None:
    model = RepresentedPPO("MlpPolicy", vectorized(lambda: time_limited(Drift()), 3), k=3, **SMALL).learn(96)
    assert float(model.policy.normalizer.moments().count) == 96
    model.save(tmp_path / "model")
    loaded = RepresentedPPO.load(tmp_path / "model")
    expected, _ = model.predict(OBS, representative=1, deterministic=True)
    np.testing.assert_array_equal(loaded.predict(OBS, representative=1, deterministic=True)[0], expected)
    with th.no_grad():
        loaded.policy.normalizer.moments().mean.add_(1.0)
    assert not np.array_equal(loaded.predict(OBS, representative=1, deterministic=True)[0], expected)


def test_open_files(tmp_path: Path) -> None:
    model = trained()
    buffer = io.BytesIO()
    model.save(buffer)
    loaded = RepresentedPPO.load(buffer, env=known())
    np.testing.assert_array_equal(loaded.assignment.representatives, model.assignment.representatives)


def test_a_file_tells_the_version_that_saved_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_rmdp.__version__", "0.0.7")
    model = trained()
    assert model.sb3_rmdp_version is None
    model.save(tmp_path / "old.zip")
    monkeypatch.undo()
    loaded = RepresentedPPO.load(tmp_path / "old.zip")
    assert loaded.sb3_rmdp_version == "0.0.7"
    loaded.save(tmp_path / "new.zip")
    assert RepresentedPPO.load(tmp_path / "new.zip").sb3_rmdp_version == __version__


def test_hyperparameters_can_change_on_loading(tmp_path: Path) -> None:
    trained().save(tmp_path / "model")
    kwargs = dict(mixing=0.5, warm_start=1)
    loaded = RepresentedPPO.load(
        tmp_path / "model", env=known(), learning_rate=1e-5, k=3, assignment="em", assignment_kwargs=kwargs
    )
    assert loaded.lr_schedule(1.0) == 1e-5
    assert loaded.assignment.mixing == 0.5


@pytest.mark.parametrize("change", [{"k": 2}, {"assignment": "random"}])
def test_what_the_model_is_made_of_cannot_change_on_loading(change: dict, tmp_path: Path) -> None:
    trained().save(tmp_path / "model")
    (name,) = change
    with pytest.raises(ValueError, match=f"{name}=.* cannot be changed on loading"):
        RepresentedPPO.load(tmp_path / "model", **change)


@pytest.mark.parametrize("change", [{"ent_coef": "lin_1_0"}, {"normalize_advantage": "batch"}])
def test_hyperparameters_are_checked_on_loading(change: dict, tmp_path: Path) -> None:
    trained().save(tmp_path / "model.zip")
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        RepresentedPPO.load(tmp_path / "model.zip", **change)


def test_numpy_k_and_an_assignment_of_ones_own(tmp_path: Path) -> None:
    class Own(RandomAssignment):
        pass

    model = RepresentedPPO("MlpPolicy", known(), k=np.int64(3), assignment=Own, **SMALL)
    model.save(tmp_path / "model")
    loaded = RepresentedPPO.load(tmp_path / "model", env=known(), assignment=Own, k=3)
    np.testing.assert_array_equal(loaded.assignment.representatives, model.assignment.representatives)
    with pytest.raises(ValueError, match=r"assignment=.* cannot be changed"):
        RepresentedPPO.load(tmp_path / "model", assignment="random")


def test_size_of_a_zip_does_not_grow_with_the_episodes_seen(tmp_path: Path) -> None:
    model = trained()
    model.save(tmp_path / "a.zip")
    model.learn(6 * 48, reset_num_timesteps=False)
    model.save(tmp_path / "b.zip")
    assert abs((tmp_path / "a.zip").stat().st_size - (tmp_path / "b.zip").stat().st_size) < 5000


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained()
    model.save(tmp_path / "model.zip")
    content = (tmp_path / "model.zip").read_bytes()

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(th, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        model.save(tmp_path / "model.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["model.zip"]
    assert (tmp_path / "model.zip").read_bytes() == content


def test_a_folder_of_the_same_name_is_not_taken_for_the_file(tmp_path: Path) -> None:
    trained().save(tmp_path / "model.zip")
    (tmp_path / "model").mkdir()
    assert RepresentedPPO.load(tmp_path / "model").k == 3


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model file"):
        RepresentedPPO.load(tmp_path / "nothing")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_truncated_zip(keep: float, tmp_path: Path) -> None:
    trained().save(tmp_path / "model.zip")
    content = (tmp_path / "model.zip").read_bytes()
    (tmp_path / "model.zip").write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=r"model.zip is not a complete zip file.*truncated"):
        RepresentedPPO.load(tmp_path / "model.zip")


def test_a_damaged_zip(tmp_path: Path) -> None:
    trained().save(tmp_path / "model.zip")
    content = bytearray((tmp_path / "model.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        offset = archive.getinfo("policy.pth").header_offset + 5000
    content[offset] ^= 0xFF
    (tmp_path / "model.zip").write_bytes(content)
    with pytest.raises(ValueError, match="not a complete zip file"):
        RepresentedPPO.load(tmp_path / "model.zip")


def test_a_zip_of_plain_ppo(tmp_path: Path) -> None:
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8).save(tmp_path / "ppo.zip")
    with pytest.raises(ValueError, match=r"no model of RepresentedPPO.*lacks \['k'.*PPO.load"):
        RepresentedPPO.load(tmp_path / "ppo.zip")


def test_any_other_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="no model of RepresentedPPO"):
        RepresentedPPO.load(tmp_path / "other.zip")


def test_another_population_is_refused(tmp_path: Path) -> None:
    ids = {seed: gym.make("rmdp/HopperVelocity-v0", n_agents=6, population_seed=seed) for seed in (0, 1)}
    model = RepresentedPPO("MlpPolicy", ids[0], k=2, **SMALL)
    model.save(tmp_path / "model")
    fewer = gym.make("rmdp/HopperVelocity-v0", n_agents=5)
    for env, message in (
        (ids[1], r"population 'velocity-\w+', the model was made for 'velocity-\w+'"),
        (fewer, "n_agents=5.*for 6"),
    ):
        with pytest.raises(ValueError, match=message):
            model.set_env(env)
        with pytest.raises(ValueError, match=message):
            RepresentedPPO.load(tmp_path / "model", env=env)
        with pytest.raises(ValueError, match=message):
            evaluate_welfare(model, env, 1)
    model.set_env(ids[0])
    assert RepresentedPPO.load(tmp_path / "model", env=ids[0]).n_envs == 2


def test_a_model_trained_under_vec_normalize_wants_it_back(tmp_path: Path) -> None:
    def plain() -> Any:
        return vectorized(lambda: time_limited(Drift()), 3)

    env = VecNormalize(plain(), norm_reward=False)
    RepresentedPPO("MlpPolicy", env, k=3, **SMALL).learn(48).save(tmp_path / "model")
    model = RepresentedPPO.load(tmp_path / "model")
    with pytest.raises(ValueError, match="normalised by VecNormalize"):
        evaluate_welfare(model, plain(), 1)
    assert evaluate_welfare(model, env, 1).utilities.shape == (3, 3)
    model.set_env(plain())
    with pytest.raises(ValueError, match="normalised by VecNormalize"):
        model.learn(48)
    unnormalized = RepresentedPPO("MlpPolicy", plain(), k=3, **SMALL).learn(48)
    with pytest.raises(ValueError, match="without VecNormalize"):
        evaluate_welfare(unnormalized, env, 1)


def test_learning_without_an_environment(tmp_path: Path) -> None:
    trained().save(tmp_path / "model")
    with pytest.raises(ValueError, match="no environment to learn in"):
        RepresentedPPO.load(tmp_path / "model").learn(10)
