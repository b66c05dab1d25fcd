"""
Training that goes on after saving and loading, compared with training that was never broken off: to the last bit.

The probes do not tell where they are within an episode. Those of most tests end episodes with rollouts and begin them all
alike, so that nothing is lost with them.
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
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecMonitor, VecNormalize

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.assignment import ASSIGNMENTS, EpisodeAssignment
from sb3_rmdp.common.callbacks import AnnealCallback
from sb3_rmdp.common.packing import pack
from tests.probes import Probe, time_limited, vectorized
from tests.represented_ppo.runs import Curve, SaveBetween
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


SETTINGS: dict[str, Any] = dict(
    learning_rate=lambda remaining: 1e-2 * remaining + 1e-4,
    clip_range=lambda remaining: 0.1 + 0.1 * remaining,
    n_steps=N_STEPS,
    batch_size=4,
    n_epochs=2,
    seed=0,
    device="cpu",
    stats_window_size=5,
)


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


class TellingWalk(Walk):
    """The same, seven steps long, so that episodes run on from one rollout to the next; it tells where it is."""

    horizon = 7

    def get_state(self) -> dict[str, Any]:
        return {"time": self.time, "position": self.position}

    def set_state(self, state: dict[str, Any]) -> None:
        self.time, self.position = state["time"], state["position"]


def make(assignment: str = "em", env: VecEnv | None = None, **kwargs: Any) -> RepresentedPPO:
    model = RepresentedPPO(
        "MlpPolicy",
        env or vectorized(Walk, N_ENVS),
        k=K,
        assignment=assignment,
        assignment_kwargs=ASSIGNMENT_KWARGS.get(assignment),
        **(SETTINGS | kwargs),
    )
    model.set_logger(Logger(None, [Curve()]))
    return model


def rows_of(model: RepresentedPPO) -> list[dict[str, Any]]:
    (curve,) = model.logger.output_formats
    assert isinstance(curve, Curve)
    return [row for _, row in curve.rows]


def second_half(model: RepresentedPPO, timesteps: int = HALF, callback: list[BaseCallback] | None = None) -> list[dict]:
    """Learn on, and return what was logged."""
    before = len(rows_of(model))
    model.learn(timesteps, callback=callback, reset_num_timesteps=False)
    model.dump_logs()  # of the last update, too
    return rows_of(model)[before:]


def loaded(path: Path, env: VecEnv | None = None, **kwargs: Any) -> RepresentedPPO:
    model = RepresentedPPO.load(path, env=env or vectorized(Walk, N_ENVS), device="cpu", **kwargs)
    model.set_logger(Logger(None, [Curve()]))
    return model


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
    expected = second_half(unbroken)
    broken = loaded(tmp_path / "model")
    assert second_half(broken) == expected
    assert_same(broken, unbroken)
    # The comparison is worth something: there is much to compare, and it moves
    wanted = {"rollout/social_welfare", "rollout/welfare_min", "assignment/entropy", "train/value_loss", "train/learning_rate"}
    assert len(expected) == 5 and all(wanted <= row.keys() for row in expected[:4])
    assert expected[0]["rollout/social_welfare"] != expected[3]["rollout/social_welfare"]


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("probe", [Walk, TellingWalk])
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_the_rest_of_an_interrupted_call_of_learn(assignment: str, probe: type[Walk], tmp_path: Path) -> None:
    """Asked for what is left, ``learn`` takes up schedules, annealing and the progress of the assignment where they were."""
    unbroken = make(assignment, vectorized(probe, N_ENVS))
    unbroken.learn(2 * HALF, callback=[SaveBetween(tmp_path, HALF), AnnealCallback("ent_coef", 0.1, 0.0)])
    unbroken.dump_logs()

    broken = loaded(tmp_path / "between", vectorized(probe, N_ENVS))
    assert broken.num_timesteps == HALF
    rows = second_half(broken, 2 * HALF - broken.num_timesteps, [AnnealCallback("ent_coef", 0.1, 0.0)])
    assert rows == rows_of(unbroken)[4:]
    assert [row["train/ent_coef"] for row in rows[:4]] == pytest.approx([0.05, 0.0375, 0.025, 0.0125])
    assert_same(broken, unbroken)
    assert pack(broken.assignment.get_run_state()) == pack(unbroken.assignment.get_run_state())
    if assignment == "clustering":
        assert bool(broken.assignment.clustered)  # not before the second half: its share is 0.6


def test_turns_and_returns_of_those_whose_turn_it_is_not(tmp_path: Path) -> None:
    """Welfare counts all representatives, also those that have finished no episode since the model was loaded."""
    unbroken = make(env=vectorized(LongWalk, 1)).learn(4 * N_STEPS)
    assert unbroken._acting.tolist() == [1]
    unbroken.save(tmp_path / "model")
    expected = second_half(unbroken, 4 * N_STEPS)
    broken = loaded(tmp_path / "model", vectorized(LongWalk, 1))
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
    other = loaded(tmp_path / "model", vectorized(LongWalk, n_envs))
    assert_same(other, model)
    rows = second_half(other, 2 * N_STEPS * n_envs)
    # Known from the beginning, although with few environments not everybody has acted
    assert all(np.isfinite(row["rollout/social_welfare"]) for row in rows[:2])
    assert other.num_timesteps == HALF + 2 * N_STEPS * n_envs
    assert other._acting.shape == (n_envs,)
    if isinstance(model.assignment, EpisodeAssignment):  # what it remembers is as good there
        assert other.assignment.archive.episodes


def normalized(probe: type[Walk]) -> VecNormalize:
    return VecNormalize(vectorized(probe, N_ENVS), norm_reward=False)


@pytest.mark.parametrize("vec_normalize", [False, True])
@pytest.mark.parametrize("assignment", ["em", "end_to_end", "episodes"])
def test_a_checkpoint_within_a_rollout(assignment: str, vec_normalize: bool, tmp_path: Path) -> None:
    """Its name counts the steps until then, and the rollout is played again. Statistics of VecNormalize are in it as well."""
    env = normalized(TellingWalk) if vec_normalize else vectorized(TellingWalk, N_ENVS)
    unbroken = make(assignment, env, normalize_observations=not vec_normalize)
    checkpoints = CheckpointCallback(4 * N_STEPS + 6, str(tmp_path), "model", save_vecnormalize=vec_normalize)
    unbroken.learn(2 * HALF, callback=checkpoints)
    unbroken.dump_logs()
    (checkpoint,) = tmp_path.glob("model_*_steps.zip")
    assert checkpoint.name == f"model_{HALF + 6 * N_ENVS}_steps.zip"

    other = vectorized(TellingWalk, N_ENVS)
    broken = loaded(checkpoint, VecNormalize.load(str(next(tmp_path.glob("*.pkl"))), other) if vec_normalize else other)
    assert broken.num_timesteps == HALF + 6 * N_ENVS
    assert second_half(broken, 2 * HALF - broken.num_timesteps, checkpoints) == rows_of(unbroken)[4:]
    assert_same(broken, unbroken)
    if vec_normalize:
        for name in ("mean", "var", "count"):
            own, others = (getattr(model.get_vec_normalize_env().obs_rms, name) for model in (broken, unbroken))
            np.testing.assert_array_equal(own, others)


class Stop(BaseCallback):
    """Ends the training at a step, as a callback does that has seen enough, or Ctrl-C."""

    def _on_step(self) -> bool:
        return self.n_calls < 4 * N_STEPS + 3


def test_a_training_that_a_callback_ended_goes_on_from_its_file(tmp_path: Path) -> None:
    unbroken = make("episodes", vectorized(TellingWalk, N_ENVS)).learn(2 * HALF)
    unbroken.dump_logs()
    stopped = make("episodes", vectorized(TellingWalk, N_ENVS)).learn(2 * HALF, callback=Stop())
    assert stopped.num_timesteps == HALF + 3 * N_ENVS
    stopped.save(tmp_path / "model")
    broken = loaded(tmp_path / "model", vectorized(TellingWalk, N_ENVS))
    assert broken.num_timesteps == stopped.num_timesteps
    assert second_half(broken, 2 * HALF - broken.num_timesteps) == rows_of(unbroken)[4:]
    assert_same(broken, unbroken)


class StrayingWalk(TellingWalk):
    """It says nothing of where it is."""

    get_state = set_state = None  # type: ignore[assignment]


class WrongWalk(TellingWalk):
    """Its methods are others that happen to have these names."""

    def get_state(self) -> Any:  # type: ignore[override]
        return np.array([self.position])


@pytest.mark.parametrize(
    ("probe", "message"), [(StrayingWalk, "StrayingWalk has no get_state"), (WrongWalk, "of WrongWalk returned no dict")]
)
def test_episodes_that_cannot_go_on_are_told_of_once(probe: type[Walk], message: str, tmp_path: Path) -> None:
    model = make("episodes", vectorized(probe, N_ENVS)).learn(HALF)
    assert not model._last_episode_starts.any()
    model.save(tmp_path / "model")
    # It is no secret where this is: the same random numbers follow, but for those of lost steps
    broken = loaded(tmp_path / "model", vectorized(probe, N_ENVS))
    with pytest.warns(UserWarning, match=f"new ones begin.*{message}") as told:
        broken.learn(HALF, reset_num_timesteps=False)
    assert len(told) == 1
    assert broken.num_timesteps == 2 * HALF and len(broken.assignment.archive) > 0
    broken.learn(HALF, reset_num_timesteps=False)  # and no more of it


def test_another_wrapper_ends_episodes(tmp_path: Path) -> None:
    make(env=vectorized(TellingWalk, N_ENVS)).learn(HALF).save(tmp_path / "model")
    for env, message in (
        (vectorized(lambda: time_limited(TellingWalk(), 7), N_ENVS), "TimeLimit of TellingWalk, and was TellingWalk"),
        (VecMonitor(vectorized(TellingWalk, N_ENVS)), r"wrapped by \['VecMonitor'\], and was by \[\]"),
    ):
        broken = loaded(tmp_path / "model", env)
        with pytest.warns(UserWarning, match=message):
            broken.learn(HALF, reset_num_timesteps=False)


def test_without_the_run_state_files_are_smaller_and_random_numbers_others(tmp_path: Path) -> None:
    model = make("episodes", vectorized(TellingWalk, N_ENVS)).learn(HALF)
    model.save(tmp_path / "with")
    model.save(tmp_path / "without", exclude=["run_state"])
    assert (tmp_path / "without.zip").stat().st_size < (tmp_path / "with.zip").stat().st_size - 10_000
    logs = [second_half(loaded(tmp_path / name, vectorized(TellingWalk, N_ENVS))) for name in ("with", "without")]
    assert logs[0] == second_half(model) != logs[1]


def test_a_model_that_is_loaded_and_saved_again_goes_on_all_the_same(tmp_path: Path) -> None:
    model = make("episodes", vectorized(TellingWalk, N_ENVS)).learn(HALF)
    model.save(tmp_path / "model")
    expected = second_half(model)
    RepresentedPPO.load(tmp_path / "model").save(tmp_path / "again")
    assert second_half(loaded(tmp_path / "again", vectorized(TellingWalk, N_ENVS))) == expected


def test_random_numbers_are_left_alone_until_a_training_goes_on(tmp_path: Path) -> None:
    make(env=vectorized(TellingWalk, N_ENVS)).learn(HALF).save(tmp_path / "model")
    broken = loaded(tmp_path / "model", vectorized(TellingWalk, N_ENVS))
    set_random_seed(7)
    expected = np.random.random(), th.rand(1).item()
    set_random_seed(7)
    broken.predict(np.zeros(2, dtype=np.float32), representative=0, deterministic=True)
    assert (np.random.random(), th.rand(1).item()) == expected


def test_another_seed_is_another_training(tmp_path: Path) -> None:
    model = make("episodes", vectorized(TellingWalk, N_ENVS)).learn(HALF)
    model.save(tmp_path / "model")
    expected = second_half(model)
    for seed, same in ((0, True), (1, False)):
        broken = loaded(tmp_path / "model", vectorized(TellingWalk, N_ENVS), seed=seed)
        assert (second_half(broken) == expected) is same


def test_callbacks_count_on(tmp_path: Path) -> None:
    """Checkpoints of a training that goes on are those of the unbroken one, whatever else is called there."""

    def callbacks(folder: str) -> list[BaseCallback]:
        by_steps = EveryNTimesteps(25, CheckpointCallback(1, str(tmp_path / folder), "every"))
        return [CheckpointCallback(5, str(tmp_path / folder)), by_steps]

    unbroken = make(env=vectorized(TellingWalk, N_ENVS))
    unbroken.learn(2 * HALF, callback=[*callbacks("unbroken"), SaveBetween(tmp_path, HALF)])
    broken = loaded(tmp_path / "between", vectorized(TellingWalk, N_ENVS))
    broken.learn(HALF, callback=[Fading(), *callbacks("broken")], reset_num_timesteps=False)
    names = [{path.name for path in (tmp_path / folder).iterdir()} for folder in ("unbroken", "broken")]
    assert names[1] == {name for name in names[0] if int(name.split("_")[-2]) > HALF}
    assert len(names[1]) == 6 + 4


class Fading(BaseCallback):
    """Changes what it finds, so that it must not happen twice."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.model.ent_coef *= 0.9  # type: ignore[attr-defined]


def test_what_callbacks_change_where_a_rollout_begins_is_not_changed_twice(tmp_path: Path) -> None:
    unbroken = make(env=vectorized(TellingWalk, N_ENVS), ent_coef=1.0)
    unbroken.learn(2 * HALF, callback=[Fading(), CheckpointCallback(4 * N_STEPS + 6, str(tmp_path))])
    (checkpoint,) = tmp_path.glob("*.zip")
    broken = loaded(checkpoint, vectorized(TellingWalk, N_ENVS))
    broken.learn(2 * HALF - broken.num_timesteps, callback=[Fading()], reset_num_timesteps=False)
    assert broken.ent_coef == unbroken.ent_coef == pytest.approx(0.9**8)
    assert_same(broken, unbroken)


def test_lines_of_the_log_keep_their_distance(tmp_path: Path) -> None:
    unbroken = make(env=vectorized(TellingWalk, N_ENVS))
    unbroken.learn(2 * HALF, callback=[SaveBetween(tmp_path, HALF)], log_interval=3)
    broken = loaded(tmp_path / "between", vectorized(TellingWalk, N_ENVS))
    broken.learn(HALF, reset_num_timesteps=False, log_interval=3)
    assert [row["time/iterations"] for row in rows_of(unbroken)] == [3, 6]
    assert rows_of(broken) == rows_of(unbroken)[1:]


def test_files_of_earlier_versions(tmp_path: Path) -> None:
    """They know neither whose turn it is nor what was last seen of representatives."""
    model = make().learn(HALF)
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as new, zipfile.ZipFile(tmp_path / "old.zip", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            if name == "run_state":
                continue
            if name == "data":
                data = json.loads(content)
                del data["_acting"]
                content = json.dumps(data).encode()
            if name == "pytorch_variables.pth":
                file = io.BytesIO()
                th.save({}, file)
                content = file.getvalue()
            old.writestr(name, content)
    earlier = RepresentedPPO.load(tmp_path / "old.zip", env=vectorized(Walk, N_ENVS), device="cpu", trusted=True)
    assert_equal_states(earlier.get_parameters(), model.get_parameters())
    # Three environments: the turns of a new training are those of the old one, and everybody acts in every rollout
    logs = []
    for going_on in (earlier, model):
        set_random_seed(7)
        going_on.set_logger(Logger(None, [Curve()]))
        logs.append(second_half(going_on))
        for row in logs[-1]:
            row.pop("time/iterations", None)
    assert logs[0] == logs[1]


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


def test_files_of_a_training_whose_processes_are_closed(tmp_path: Path) -> None:
    """RL Zoo closes environments, and saves then."""

    def env() -> VecEnv:
        return make_vec_env("sb3_rmdp.envs:rmdp/ResourceGathering-v0", 3, seed=5, vec_env_cls=SubprocVecEnv)

    model = make(env=env(), learning_rate=1e-3, clip_range=0.2).learn(HALF)
    model.save(tmp_path / "open")
    model.get_env().close()
    model.save(tmp_path / "closed")
    logs = []
    for name in ("open", "closed"):
        broken = loaded(tmp_path / name, env())
        logs.append(second_half(broken))
        broken.get_env().close()
    assert logs[0] == logs[1]


def test_a_file_may_be_written_before_the_first_rollout(tmp_path: Path) -> None:
    class SaveAtTheStart(BaseCallback):
        def _on_training_start(self) -> None:
            self.model.save(tmp_path / "start.zip")

        def _on_step(self) -> bool:
            return True

    model = make().learn(HALF, callback=SaveAtTheStart())
    loaded = RepresentedPPO.load(tmp_path / "start.zip", env=vectorized(Walk, N_ENVS), device="cpu")
    loaded.learn(HALF, reset_num_timesteps=False)
    assert loaded.num_timesteps == model.num_timesteps


def test_a_file_is_written_when_a_callback_has_read_what_nobody_logged(tmp_path: Path) -> None:
    """SB3's logger enters a value that is read, and nothing beside it."""

    class Reader(BaseCallback):
        def _on_rollout_end(self) -> None:
            assert self.logger.name_to_value["rollout/ep_rew_mean"] == 0.0
            self.model.save(tmp_path / "read.zip")

        def _on_step(self) -> bool:
            return True

    model = make().learn(HALF, callback=Reader())
    loaded = RepresentedPPO.load(tmp_path / "read.zip", env=vectorized(Walk, N_ENVS), device="cpu")
    loaded.learn(N_STEPS * N_ENVS, reset_num_timesteps=False)
    assert loaded.num_timesteps == model.num_timesteps + N_STEPS * N_ENVS
