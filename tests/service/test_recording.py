"""Recorded episodes are those that evaluations see, whole, and belong to one model."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.seeds import seed_evaluation
from sb3_rmdp.service import EvaluationEpisodes, Origin, record_episodes
from sb3_rmdp.service.episodes import SCHEMA
from tests.service.worlds import SMALL, WEIGHTS, DictWalk, Walk, factored, obedient, objectives, plain, wanted_places

CASES = [(plain, Walk, "MlpPolicy"), (factored, Walk, "MlpPolicy"), (plain, DictWalk, "MultiInputPolicy")]


def equal(first: EvaluationEpisodes, second: EvaluationEpisodes) -> None:
    """
    :param first: some episodes
    :param second: that should be the same
    """
    assert first.origin == second.origin and first.trajectories is not None and second.trajectories is not None
    np.testing.assert_array_equal(first.returns, second.returns)
    np.testing.assert_array_equal(first.lengths, second.lengths)
    assert (first.mean_square is None) == (second.mean_square is None)
    np.testing.assert_array_equal(first.trajectories.actions, second.trajectories.actions)
    for name in ("observations", "infos"):
        one, other = getattr(first.trajectories, name), getattr(second.trajectories, name)
        assert list(one) == list(other)
        for key, array in one.items():
            assert array.dtype == other[key].dtype
            np.testing.assert_array_equal(array, other[key])


@pytest.mark.parametrize("n_envs", [1, 2, 5])
@pytest.mark.parametrize(("agents", "walk", "policy"), CASES)
def test_returns_are_those_of_the_steps(agents: Any, walk: Any, policy: str, n_envs: int, tmp_path: Path) -> None:
    env = DummyVecEnv([lambda: agents(walk())] * n_envs)
    model = obedient(env, 3, policy)
    episodes = record_episodes(model, env, 4, deterministic=False)
    assert (episodes.k, episodes.n_episodes, episodes.factored) == (3, 4, agents is factored)
    assert set(episodes.lengths.ravel().tolist()) <= {3, 4, 5, 6} and len(set(episodes.lengths.ravel().tolist())) > 1
    reward: Any = objectives if agents is factored else wanted_places
    for j in range(3):
        for e in range(4):
            one = episodes.transitions(j, e)
            length = episodes.lengths[j, e]
            rows = [one.observations, one.next_observations]
            steps = []
            for t in range(length):
                before, after = ({key: x[t] for key, x in r.items()} if isinstance(r, dict) else r[t] for r in rows)
                steps.append(reward(before, one.actions[t], after, {key: x[t] for key, x in one.infos.items()}))
            np.testing.assert_allclose(episodes.returns[j, e], np.sum(steps, axis=0), rtol=1e-5, atol=1e-5)
            times = [r["time"][:, 0] if isinstance(r, dict) else r[:, 1] for r in rows]
            np.testing.assert_array_equal(times, [np.arange(length), np.arange(1, length + 1)])
            # What only some steps tell is left out, and so is what is no number
            assert {"drift"} <= set(one.infos) <= {"drift", "TimeLimit.truncated"}
            np.testing.assert_array_equal(one.infos["drift"], one.actions - 1.0)
    assert episodes.trajectories is not None and np.mean(episodes.trajectories.actions == 2) > 0.2
    equal(EvaluationEpisodes.load(episodes.save(tmp_path / "folder" / "episodes")), episodes)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["episodes.npz"]


@pytest.mark.parametrize("agents", [plain, factored])
def test_means_are_utilities_of_an_evaluation(agents: Any) -> None:
    env = DummyVecEnv([lambda: agents()] * 2)
    model = obedient(env, 3)
    episodes = record_episodes(model, env, 5, deterministic=False, seed=7)
    seed_evaluation(env, 7)
    result = evaluate_welfare(model, env, 5, deterministic=False)
    means = episodes.returns.mean(axis=1, dtype=np.float64)
    utilities = means.T if agents is plain else WEIGHTS @ means.T
    np.testing.assert_allclose(utilities, result.utilities, rtol=1e-5, atol=1e-5)
    equal(record_episodes(model, env, 5, deterministic=False, seed=7), episodes)
    other = record_episodes(model, env, 5, deterministic=False, seed=8)
    assert not np.array_equal(other.returns, episodes.returns)


def test_observations_under_vec_normalize_are_the_original_ones() -> None:
    env = VecNormalize(DummyVecEnv([plain] * 2), norm_reward=False)
    model = RepresentedPPO("MlpPolicy", env, k=2, **SMALL).learn(64)
    env.training = True
    moments: Any = env.obs_rms
    count = moments.count
    episodes = record_episodes(model, env, 3)
    assert env.training and moments.count == count
    for e in range(3):
        one = episodes.transitions(1, e)
        assert isinstance(one.next_observations, np.ndarray) and isinstance(one.observations, np.ndarray)
        np.testing.assert_array_equal(one.observations[:, 1], np.arange(episodes.lengths[1, e]))
        np.testing.assert_allclose(one.next_observations[:, 1], np.arange(episodes.lengths[1, e]) + 1, rtol=1e-5)


def test_stacked_observations() -> None:
    env = VecFrameStack(DummyVecEnv([plain] * 2), 2)
    model = obedient(env, 2)
    one = record_episodes(model, env, 2).transitions(0, 1)
    assert isinstance(one.next_observations, np.ndarray)
    np.testing.assert_array_equal(one.next_observations[:, 3], np.arange(len(one.actions)) + 1)
    below = VecFrameStack(VecNormalize(DummyVecEnv([plain] * 2), norm_reward=False), 2)
    with pytest.raises(ValueError, match="put VecNormalize above"):
        record_episodes(RepresentedPPO("MlpPolicy", below, k=2, **SMALL), below, 2)


def test_trajectories_can_be_left_out_and_are_bounded(tmp_path: Path) -> None:
    env = DummyVecEnv([plain] * 2)
    model = obedient(env, 2)
    whole = record_episodes(model, env, 3)
    without = record_episodes(model, env, 3, trajectories=False)
    with pytest.warns(UserWarning, match="more than 200 bytes"):
        bounded = record_episodes(model, env, 3, max_bytes=200)
    for episodes in (without, bounded, EvaluationEpisodes.load(without.save(tmp_path / "without.npz"))):
        np.testing.assert_array_equal(episodes.returns, whole.returns)
        assert episodes.trajectories is None
        with pytest.raises(ValueError, match="trajectories=True"):
            episodes.transitions(0, 0)


def test_single_environments_and_ids() -> None:
    model = obedient(plain(), 2)
    assert record_episodes(model, plain(), 2).origin.env_id is None
    tours = RepresentedPPO("MlpPolicy", "rmdp/ResourceGathering-v0", k=2, **SMALL)
    episodes = record_episodes(tours, "rmdp/ResourceGathering-v0", 2, deterministic=False)
    assert episodes.origin.env_id == "rmdp/ResourceGathering-v0" and episodes.returns.shape == (2, 2, 25)
    with pytest.raises(ValueError, match="did you mean"):
        record_episodes(tours, "rmdp/ResourceGatherin-v0", 2)


def test_episodes_of_another_model_are_refused(tmp_path: Path) -> None:
    model = obedient(plain(), 2)
    episodes = record_episodes(model, plain(), 2)
    model.save(tmp_path / "model.zip")
    episodes.check_model(RepresentedPPO.load(tmp_path / "model.zip", device="cpu"))
    for other in (obedient(plain(), 2, seed=2), obedient(plain(), 1), obedient(factored(), 2), model.learn(16)):
        with pytest.raises(ValueError, match="recorded with another model"):
            episodes.check_model(other)
        with pytest.raises(ValueError, match="recorded with another model"):
            other.assign(np.ones(5), episodes)


def test_other_environments_are_refused() -> None:
    model = obedient(plain(), 2)
    for env, text in ((factored(), "n_agents=7, the model was made for 5"), (Walk(), "no attribute n_agents")):
        with pytest.raises(ValueError, match=text):
            record_episodes(model, env, 2)
    with pytest.raises(ValueError, match="norm_reward=False"):
        record_episodes(model, VecNormalize(DummyVecEnv([plain])), 2)
    with pytest.raises(ValueError, match="n_episodes=1"):
        record_episodes(model, plain(), 1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of episodes."""
    path = tmp_path_factory.mktemp("episodes") / "episodes.npz"
    return record_episodes(obedient(plain(), 2), plain(), 3).save(path)


def changed(path: Path, new: Path, **arrays: Any) -> Path:
    """
    :param path: file of episodes
    :param new: file that is to differ
    :param arrays: in what; ``None`` is to be missing
    :return: the new file
    """
    with np.load(path) as archive:
        content = {name: archive[name] for name in archive.files}
    content.update(arrays)
    np.savez(new, **{name: array for name, array in content.items() if array is not None})
    return new


def facts(path: Path, **others: Any) -> np.ndarray:
    """
    :param path: file of episodes
    :param others: facts that are to differ
    :return: the facts as they stand in a file
    """
    with np.load(path) as archive:
        old = json.loads(archive["facts"].tobytes())
    return np.frombuffer(json.dumps({**old, **others}).encode(), dtype=np.uint8)


def test_broken_files_are_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    broken = tmp_path / "broken.npz"
    middle = bytearray(content)
    with zipfile.ZipFile(saved) as archive:
        (entry,) = [info for info in archive.infolist() if info.filename == "returns.npy"]
    middle[entry.header_offset + 80] ^= 0xFF
    for wrong in (content[: len(content) // 2], content[:-5], b"", b"no file of episodes", bytes(middle)):
        broken.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"no complete file of evaluation episodes.*record the episodes anew"):
            EvaluationEpisodes.load(broken)
    np.save(tmp_path / "array.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.savez(tmp_path / "objects.npz", facts=np.array([{}], dtype=object))
    for path in (tmp_path / "array.npy", tmp_path / "other.npz", tmp_path / "objects.npz"):
        with pytest.raises(ValueError, match="no complete file of evaluation episodes"):
            EvaluationEpisodes.load(path)
    with pytest.raises(FileNotFoundError, match="there is no file of episodes"):
        EvaluationEpisodes.load(tmp_path / "missing.npz")


def test_other_formats_and_contents_are_refused(saved: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.npz"
    with pytest.raises(ValueError, match=f"written in format 0, this version reads {SCHEMA}"):
        EvaluationEpisodes.load(changed(saved, new, facts=facts(saved, schema=0)))
    returns = np.load(saved)["returns"]
    infinite = returns.copy()
    infinite[1, 2, 0] = np.inf
    for arrays, text in (
        (dict(facts=facts(saved, origin={"policy": "x"})), "n_agents"),
        (dict(returns=None), "returns"),
        (dict(returns=returns[:, :, :4]), r"give \(k, n_episodes, 5\)"),
        (dict(returns=returns[:, :1]), "single episode"),
        (dict(returns=infinite), "episode 2 of representative 1"),
        (dict(lengths=np.zeros((2, 3), np.int64)), "positive"),
        (dict(actions=np.zeros(2, np.int64)), "steps that lengths tell of"),
        (dict(mean_square=np.eye(2)), r"give \(5, 5\)"),
    ):
        with pytest.raises(ValueError, match=f"no complete file.*{text}"):
            EvaluationEpisodes.load(changed(saved, new, **arrays))
    equal(EvaluationEpisodes.load(changed(saved, new)), EvaluationEpisodes.load(saved))


def test_an_interrupted_save_leaves_the_old_file(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = EvaluationEpisodes.load(saved)
    path = episodes.save(tmp_path / "episodes.npz")

    def fail(file: Any, **arrays: Any) -> None:
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        episodes.save(path)
    equal(EvaluationEpisodes.load(path), episodes)
    assert [file.name for file in tmp_path.iterdir()] == ["episodes.npz"]


def test_missing_episodes_are_named(saved: Path) -> None:
    episodes = EvaluationEpisodes.load(saved)
    for j, e in ((2, 0), (0, 3), (-1, 0)):
        with pytest.raises(ValueError, match=f"no episode {e} of representative {j}: .* 0 to 1, their episodes 0 to 2"):
            episodes.transitions(j, e)
    assert str(episodes) == "3 episodes of each of 2 representatives, scored by 5 agents, with trajectories"


def test_vec_envs_of_registered_environments_tell_their_id() -> None:
    env = make_vec_env("rmdp/ResourceGathering-v0", 2)
    model = RepresentedPPO("MlpPolicy", env, k=2, **SMALL)
    assert record_episodes(model, env, 2).origin == Origin(
        policy=record_episodes(model, env, 2, seed=None).origin.policy,
        n_agents=25,
        population_id=model.population_id,
        env_id="rmdp/ResourceGathering-v0",
        seed=0,
    )
