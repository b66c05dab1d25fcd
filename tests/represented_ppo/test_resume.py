"""
Training that goes on after saving and loading, compared with training that was never broken off: to the last bit.

Random numbers are not part of a file, so both are seeded anew where the second half begins. Running episodes are not
either; those of the probe end with the rollout and begin all alike, so that nothing is lost with them. Nor is the archive of
"episodes", which an unbroken run has to be told to forget.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.assignment import ASSIGNMENTS, EpisodeAssignment
from sb3_rmdp.common.callbacks import AnnealCallback
from tests.probes import Probe, vectorized
from tests.represented_ppo.test_save_load import assert_equal_states

N_STEPS, N_ENVS, K = 8, 3, 3
HALF = 4 * N_STEPS * N_ENVS
ASSIGNMENT_KWARGS: dict[str, dict] = {
    "em": dict(warm_start=2, mixing=0.3),
    "end_to_end": dict(learning_rate=0.05),
    "episodes": dict(warm_start=1, move_cost=0.0),
    "fixed": dict(representatives=[2, 1, 0, 1, 2]),
    "clustering": dict(universal_fraction=0.6),
}


class Walk(Probe):
    """A walk on a line, four steps long, where agent i likes to be at the i-th of five places. Nothing in it is random."""

    n_agents = 5
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)
    horizon = 4
    position = 0.0

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        self.position = 0.0
        return super().reset(**kwargs)

    def observe(self) -> np.ndarray:
        return np.array([self.time, self.position], dtype=np.float32)

    def rewards(self, action: np.ndarray) -> np.ndarray:
        self.position += float(action[0])
        return -np.abs(np.linspace(-2.0, 2.0, self.n_agents) - self.position)


class LongWalk(Walk):
    """The same with one episode per rollout: with one environment, one representative of three acts in a rollout."""

    horizon = N_STEPS


class Curve(KVWriter):
    """Keeps all that is logged, but for what clocks say and for the count of rollouts within a call of ``learn``."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        clocks = ("time/fps", "time/time_elapsed", "time/iterations")
        self.rows.append({name: value for name, value in key_values.items() if name not in clocks})

    def close(self) -> None:
        pass


def make(assignment: str = "em", env: VecEnv | None = None, **kwargs: Any) -> RepresentedPPO:
    return RepresentedPPO(
        "MlpPolicy",
        env or vectorized(Walk, N_ENVS),
        k=K,
        assignment=assignment,
        assignment_kwargs=ASSIGNMENT_KWARGS.get(assignment),
        learning_rate=lambda remaining: 1e-2 * remaining + 1e-4,
        clip_range=lambda remaining: 0.1 + 0.1 * remaining,
        **(dict(n_steps=N_STEPS, batch_size=4, n_epochs=2, seed=0, device="cpu", stats_window_size=5) | kwargs),
    )


def second_half(model: RepresentedPPO, timesteps: int = HALF, callback: list[BaseCallback] | None = None) -> list[dict]:
    """Learn on from a known state of the random numbers, and return what was logged."""
    curve = Curve()
    model.set_logger(Logger(None, [curve]))
    set_random_seed(7)
    model.learn(timesteps, callback=callback, reset_num_timesteps=False)
    model.dump_logs()  # of the last update, too
    return curve.rows


def forget_episodes(model: RepresentedPPO) -> None:
    """What a file does not hold."""
    if isinstance(model.assignment, EpisodeAssignment):
        assert len(model.assignment.archive) > 0
        model.assignment.archive.episodes.clear()


def state(model: RepresentedPPO) -> dict[str, Any]:
    """All that the rest of a training depends on."""
    assert model._acting is not None
    remaining = model._current_progress_remaining
    return {
        **model.get_parameters(),
        "counts": [model.num_timesteps, model._total_timesteps, model._n_updates],
        "schedules": [remaining, model.lr_schedule(remaining), model.clip_range(remaining), model.ent_coef],
        "turns": model._acting.tolist(),
        "episodes": [(info["r"], info["l"]) for info in model.ep_info_buffer],
    }


def assert_same(broken: RepresentedPPO, unbroken: RepresentedPPO) -> None:
    assert_equal_states(state(broken), state(unbroken))
    np.testing.assert_array_equal(broken._mean_returns.numpy(), unbroken._mean_returns.numpy())


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ASSIGNMENTS},
    "sde": ("end_to_end", dict(use_sde=True, sde_sample_freq=3)),
    "clipped_values": ("em", dict(clip_range_vf=lambda remaining: 0.5 * remaining + 0.1, target_kl=0.5)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_second_call_of_learn_after_loading(case: str, tmp_path: Path) -> None:
    assignment, kwargs = CASES[case]
    unbroken = make(assignment, **kwargs).learn(HALF)
    unbroken.save(tmp_path / "model")
    forget_episodes(unbroken)
    broken = RepresentedPPO.load(tmp_path / "model", env=vectorized(Walk, N_ENVS), device="cpu")
    assert_same(broken, unbroken)
    expected = second_half(unbroken)
    assert second_half(broken) == expected
    assert_same(broken, unbroken)
    # The comparison is worth something: there is much to compare, and it moves
    wanted = {"rollout/social_welfare", "rollout/welfare_min", "assignment/entropy", "train/value_loss", "train/learning_rate"}
    assert len(expected) == 5 and wanted - {"train/value_loss", "train/learning_rate"} <= expected[0].keys()
    assert wanted <= expected[1].keys()
    assert expected[0]["rollout/social_welfare"] != expected[3]["rollout/social_welfare"]


class SaveAndSeed(BaseCallback):
    """Saves between two rollouts, seeds random numbers as ``second_half`` does, and lets the curve begin anew."""

    def __init__(self, path: Path, curve: Curve):
        super().__init__()
        self.path = path
        self.curve = curve

    def _on_rollout_start(self) -> None:
        if self.num_timesteps == HALF:
            self.logger.dump()
            self.curve.rows.clear()
            self.model.save(self.path)
            forget_episodes(self.model)
            set_random_seed(7)

    def _on_step(self) -> bool:
        return True


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_the_rest_of_an_interrupted_call_of_learn(assignment: str, tmp_path: Path) -> None:
    """Asked for what is left, ``learn`` takes up schedules, annealing and the progress of the assignment where they were."""
    curve = Curve()
    unbroken = make(assignment)
    unbroken.set_logger(Logger(None, [curve]))
    anneal = AnnealCallback("ent_coef", 0.1, 0.0)
    unbroken.learn(2 * HALF, callback=[SaveAndSeed(tmp_path / "model", curve), anneal])
    unbroken.dump_logs()

    broken = RepresentedPPO.load(tmp_path / "model", env=vectorized(Walk, N_ENVS), device="cpu")
    assert broken.num_timesteps == HALF
    rows = second_half(broken, 2 * HALF - broken.num_timesteps, [AnnealCallback("ent_coef", 0.1, 0.0)])
    assert rows == curve.rows
    assert [row["train/ent_coef"] for row in rows[:4]] == pytest.approx([0.05, 0.0375, 0.025, 0.0125])
    assert_same(broken, unbroken)
    if assignment == "clustering":
        assert bool(broken.assignment.clustered)  # not before the second half: its share is 0.6


def test_turns_and_returns_of_those_whose_turn_it_is_not(tmp_path: Path) -> None:
    """Welfare counts all representatives, also those that have finished no episode since the model was loaded."""
    unbroken = make(env=vectorized(LongWalk, 1)).learn(4 * N_STEPS)
    assert unbroken._acting.tolist() == [1]
    unbroken.save(tmp_path / "model")
    broken = RepresentedPPO.load(tmp_path / "model", env=vectorized(LongWalk, 1), device="cpu")
    expected = second_half(unbroken, 4 * N_STEPS)
    assert second_half(broken, 4 * N_STEPS) == expected
    assert all("rollout/social_welfare" in row for row in expected[:4])
    assert_same(broken, unbroken)


def test_everybody_gets_a_turn_in_a_training_that_is_interrupted_after_every_rollout(tmp_path: Path) -> None:
    model = make(env=vectorized(LongWalk, 1))
    for _ in range(K):
        model.learn(N_STEPS, reset_num_timesteps=False)
        model.save(tmp_path / "model")
        model = RepresentedPPO.load(tmp_path / "model", env=vectorized(LongWalk, 1), device="cpu")
    assert float(model.assignment.q_weight.min()) > 0


def test_a_new_training_of_a_loaded_model_owes_nothing_to_the_old_one(tmp_path: Path) -> None:
    make(env=vectorized(LongWalk, 1)).learn(4 * N_STEPS).save(tmp_path / "model")
    model = RepresentedPPO.load(tmp_path / "model", env=vectorized(LongWalk, 1), device="cpu").learn(N_STEPS)
    assert model._acting.tolist() == [1]  # representative 0 has acted
    assert np.isfinite(model._mean_returns.numpy()).all(axis=1).tolist() == [True, False, False]


@pytest.mark.parametrize("n_envs", [1, 2, 6])
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_another_number_of_environments(assignment: str, n_envs: int, tmp_path: Path) -> None:
    model = make(assignment).learn(HALF)
    model.save(tmp_path / "model")
    loaded = RepresentedPPO.load(tmp_path / "model", env=vectorized(LongWalk, n_envs), device="cpu")
    assert_same(loaded, model)
    rows = second_half(loaded, 2 * N_STEPS * n_envs)
    # Known from the beginning, although with few environments not everybody has acted
    assert all(np.isfinite(row["rollout/social_welfare"]) for row in rows[:2])
    assert loaded.num_timesteps == HALF + 2 * N_STEPS * n_envs
    assert loaded._acting.shape == (n_envs,)


def normalized() -> VecNormalize:
    return VecNormalize(vectorized(Walk, N_ENVS), norm_reward=False)


@pytest.mark.parametrize("assignment", ["em", "end_to_end", "episodes"])
def test_under_vec_normalize(assignment: str, tmp_path: Path) -> None:
    """VecNormalize counts the observations of the reset after loading, which an unbroken run has to be told to do."""
    unbroken = make(assignment, normalized(), normalize_observations=False).learn(HALF)
    env = unbroken.get_env()
    assert isinstance(env, VecNormalize)
    unbroken.save(tmp_path / "model")
    env.save(str(tmp_path / "statistics.pkl"))
    loaded_env = VecNormalize.load(str(tmp_path / "statistics.pkl"), vectorized(Walk, N_ENVS))
    broken = RepresentedPPO.load(tmp_path / "model", env=loaded_env, device="cpu")
    assert broken.trained_under_vec_normalize
    unbroken.set_env(env)  # resets
    forget_episodes(unbroken)
    count = env.obs_rms.count
    expected = second_half(unbroken)
    assert second_half(broken) == expected
    assert_same(broken, unbroken)
    assert env.obs_rms.count == pytest.approx(count + HALF + N_ENVS)
    for name in ("mean", "var", "count"):
        np.testing.assert_array_equal(getattr(loaded_env.obs_rms, name), getattr(env.obs_rms, name))


@pytest.mark.parametrize("vec_normalize", [False, True])
@pytest.mark.parametrize("assignment", ["em", "end_to_end", "episodes"])
def test_a_checkpoint_within_a_rollout_is_the_model_before_it(assignment: str, vec_normalize: bool, tmp_path: Path) -> None:
    """The transitions of the rollout are lost; what is left of them is the count of timesteps and rollout/ep_rew_mean."""
    model = make(assignment, normalized() if vec_normalize else None, normalize_observations=not vec_normalize).learn(HALF)
    model.save(tmp_path / "before")
    checkpoints = CheckpointCallback(6, str(tmp_path), "model", save_vecnormalize=vec_normalize)
    model.learn(N_STEPS * N_ENVS, callback=checkpoints, reset_num_timesteps=False)
    (checkpoint,) = tmp_path.glob("model_*_steps.zip")
    assert checkpoint.name == f"model_{HALF + 6 * N_ENVS}_steps.zip"

    def load(path: Path) -> RepresentedPPO:
        env = vectorized(Walk, N_ENVS)
        if vec_normalize:
            env = VecNormalize.load(str(next(tmp_path.glob("*.pkl"))), env)
        return RepresentedPPO.load(path, env=env, device="cpu")

    before, within = load(tmp_path / "before"), load(checkpoint)
    assert_equal_states(within.get_parameters(), before.get_parameters())
    assert within.num_timesteps == HALF + 6 * N_ENVS
    before.num_timesteps = within.num_timesteps
    before.ep_info_buffer = within.ep_info_buffer.copy()
    assert second_half(within) == second_half(before)
    assert_same(within, before)


def test_files_of_earlier_versions(tmp_path: Path) -> None:
    """They know neither whose turn it is nor what was last seen of representatives."""
    model = make().learn(HALF)
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as new, zipfile.ZipFile(tmp_path / "old.zip", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if name == "data":
                data = json.loads(content)
                del data["_acting"]
                content = json.dumps(data).encode()
            if name == "pytorch_variables.pth":
                file = io.BytesIO()
                th.save({}, file)
                content = file.getvalue()
            old.writestr(name, content)
    loaded = RepresentedPPO.load(tmp_path / "old.zip", env=vectorized(Walk, N_ENVS), device="cpu", trusted=True)
    assert_equal_states(loaded.get_parameters(), model.get_parameters())
    rows = second_half(loaded)
    # Three environments: the turns of a new training are those of the old one, and everybody acts in every rollout
    assert rows == second_half(model)


def test_a_file_holds_the_last_returns_in_single_precision(tmp_path: Path) -> None:
    model = make().learn(HALF)
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        variables = th.load(io.BytesIO(archive.read("pytorch_variables.pth")), weights_only=True)
    assert {name: (value.dtype, value.shape) for name, value in variables.items()} == {
        "_mean_returns": (th.float32, (K, Walk.n_agents)),
        "welfare.state": (th.float64, (0, Walk.n_agents)),  # of utilitarian welfare there is nothing to know
    }


def test_settings_of_the_assignments_optimizer_can_change_on_loading(tmp_path: Path) -> None:
    model = make("end_to_end").learn(HALF)
    model.save(tmp_path / "model")
    for kwargs, learning_rate in ((None, 0.05), (dict(learning_rate=0.5), 0.5)):
        change = {} if kwargs is None else dict(assignment_kwargs=kwargs)
        loaded = RepresentedPPO.load(tmp_path / "model", env=vectorized(Walk, N_ENVS), device="cpu", **change)
        (group,) = loaded.assignment.optimizer.param_groups
        assert group["lr"] == learning_rate and group["params"][0] is loaded.assignment.logits
        saved = model.assignment.optimizer.state_dict()["state"]
        assert_equal_states(loaded.assignment.optimizer.state_dict()["state"], saved)
