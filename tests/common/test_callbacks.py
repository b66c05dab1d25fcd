"""Callbacks."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.logger import configure
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.callbacks import AnnealCallback, WelfareEvalCallback, WelfareProgressBarCallback
from tests.probes import Drift, KnownAssignment, time_limited, vectorized

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu")


def known(**kwargs: Any) -> RepresentedPPO:
    return RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), k=3, **(SMALL | {"learning_rate": 3e-3} | kwargs))


class Watch(BaseCallback):
    """Reads something off the model after each update; to be listed before callbacks that change it."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.read = read
        self.values: list[Any] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.n_calls > 0:
            self.values.append(self.read(self.model))

    def _on_training_end(self) -> None:
        self.values.append(self.read(self.model))


def now(value: Any) -> float:
    """A number, or that of a schedule that has been replaced by a constant."""
    return value(0.3) if callable(value) else value


def learning_rate(model: RepresentedPPO) -> float:
    return model.policy.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("attribute", "read"),
    [
        ("ent_coef", lambda model: model.ent_coef),
        ("ent_coef", lambda model: model.logger.name_to_value["train/ent_coef"]),
        ("learning_rate", learning_rate),
        ("learning_rate", lambda model: model.logger.name_to_value["train/learning_rate"]),
        ("learning_rate", lambda model: model.learning_rate),  # of which a loaded model makes its schedule
        ("clip_range", lambda model: now(model.clip_range)),
        ("clip_range", lambda model: model.logger.name_to_value["train/clip_range"]),
        ("clip_range_vf", lambda model: model.logger.name_to_value["train/clip_range_vf"]),
        ("gamma", lambda model: model.rollout_buffer.gamma),
        ("gae_lambda", lambda model: model.rollout_buffer.gae_lambda),
        ("assignment.mixing", lambda model: model.assignment.mixing),
        ("assignment.mixing", lambda model: model.logger.name_to_value["train/assignment.mixing"]),
    ],
)
def test_annealing_moves_linearly_over_the_whole_training(attribute: str, read: Callable[[Any], float]) -> None:
    watch = Watch(read)
    model = known(clip_range_vf=0.2)
    model.learn(4 * 48, callback=[watch, AnnealCallback(attribute, 0.5, 0.1)], log_interval=100)
    np.testing.assert_allclose(watch.values, [0.5, 0.4, 0.3, 0.2])


@pytest.mark.parametrize("attribute", ["ent_coef", "learning_rate", "clip_range", "clip_range_vf"])
def test_annealing_replaces_schedules(attribute: str) -> None:
    used = Watch(lambda model: model.logger.name_to_value[f"train/{attribute}"])  # what the update says it has used
    model = known(**{"clip_range_vf": 0.2, attribute: LinearSchedule(7.0, 8.0, 1.0)})
    model.learn(4 * 48, callback=[used, AnnealCallback(attribute, "5e-1", "1e-1")], log_interval=100)  # type: ignore[arg-type]
    np.testing.assert_allclose(used.values, [0.5, 0.4, 0.3, 0.2])


@pytest.mark.parametrize("ent_coef", [0.2, LinearSchedule(0.2, 0.1, 1.0)])
def test_lines_of_the_log_are_those_of_an_update(ent_coef: Any, tmp_path: Path) -> None:
    """A number is logged with the rollout that it is for; schedules are logged by the model, after the update."""
    model = known(ent_coef=ent_coef)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(4 * 48, callback=[AnnealCallback("ent_coef", 0.5, 0.1), AnnealCallback("clip_range", 0.5, 0.1)])
    model.logger.close()
    with open(tmp_path / "progress.csv") as file:
        rows = list(csv.DictReader(file))
    clip_range, logged = ([float(row[f"train/{name}"] or "nan") for row in rows] for name in ("clip_range", "ent_coef"))
    np.testing.assert_allclose(clip_range, [np.nan, 0.5, 0.4, 0.3])
    np.testing.assert_allclose(logged, [0.5, 0.4, 0.3, 0.2] if isinstance(ent_coef, float) else [np.nan, 0.5, 0.4, 0.3])


def test_annealing_rounds_counts() -> None:
    count = Watch(lambda model: (model.n_epochs, model._n_updates))
    known().learn(4 * 48, callback=[count, AnnealCallback("n_epochs", 4, 1)])
    assert count.values == [(4, 4), (3, 7), (2, 9), (2, 11)]  # 4, 3.25, 2.5, 1.75


@pytest.mark.parametrize("as_saved", [0.01, LinearSchedule(0.01, 0.0, 1.0)])
def test_annealing_goes_on_after_loading(as_saved: Any, tmp_path: Path) -> None:
    def callbacks() -> tuple[Watch, list[BaseCallback]]:
        watch = Watch(lambda model: (learning_rate(model), now(model.ent_coef), now(model.clip_range)))
        anneal = [AnnealCallback(name, 1e-2, 1e-3) for name in ("learning_rate", "ent_coef", "clip_range")]
        return watch, [watch, *anneal]

    whole, first = callbacks()
    checkpoints = CheckpointCallback(save_freq=2 * 16, save_path=str(tmp_path))
    known(learning_rate=as_saved, ent_coef=as_saved, clip_range=as_saved).learn(4 * 48, callback=[*first, checkpoints])
    rest, second = callbacks()
    assert RepresentedPPO.load(tmp_path / "rl_model_96_steps").lr_schedule(0.0) == pytest.approx(7.75e-3)  # that of its time
    model = RepresentedPPO.load(tmp_path / "rl_model_96_steps", env=vectorized(KnownAssignment, 3), device="cpu")
    model.learn(2 * 48, callback=second, reset_num_timesteps=False)
    np.testing.assert_allclose(whole.values, np.repeat([[1e-2], [7.75e-3], [5.5e-3], [3.25e-3]], 3, axis=1))
    # The checkpoint is one of the second rollout, which is played again, from what the first update has left
    assert rest.values == whole.values


@pytest.mark.parametrize(
    "attribute",
    ["entropy", "policy", "normalize_advantage", "clip_range_vf", "train", "policy_class", "assignment.mix", "a.b.c", "seed"],
)
def test_only_numbers_are_annealed(attribute: str) -> None:
    model = known(seed=None)
    with pytest.raises(ValueError, match=f"attribute='{attribute}'.*only a number"):
        model.learn(48, callback=AnnealCallback(attribute, 1.0, 0.0))
    assert model.num_timesteps == 0


def test_sizes_are_not_annealed() -> None:
    with pytest.raises(ValueError, match="attribute='n_steps' is a size"):
        known().learn(48, callback=AnnealCallback("n_steps", 16, 8))


@pytest.mark.parametrize("value", ["fast", "", "nan", float("inf"), None, True, [0.1]])
def test_annealing_goes_from_number_to_number(value: Any) -> None:
    with pytest.raises(ValueError, match=r"start=.* is no finite number"):
        AnnealCallback("ent_coef", value, 0.0)
    with pytest.raises(ValueError, match=r"end=.* is no finite number"):
        AnnealCallback("ent_coef", 0.0, value)


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_the_progress_bar_tells_the_welfare(capsys: pytest.CaptureFixture[str]) -> None:
    model = known()
    model.learn(4 * 48, callback=WelfareProgressBarCallback(n_lines=2))
    lines = [line for line in capsys.readouterr().out.splitlines() if "timesteps: social welfare" in line]
    assert [line.split()[0] for line in lines] == ["96", "192"]


def test_welfare_is_evaluated_written_and_the_best_model_kept(tmp_path: Path) -> None:
    model = known()
    callback = WelfareEvalCallback(
        KnownAssignment(), n_eval_episodes=2, eval_freq=32, log_path=tmp_path, best_model_save_path=tmp_path, verbose=0
    )
    model.learn(40 * 48, callback=callback)
    with np.load(tmp_path / "evaluations.npz") as written:
        assert written["timesteps"].tolist() == [96 * (i + 1) for i in range(20)]
        utilities, assignments = written["utilities"], written["assignments"]
        assert utilities.shape == (20, 6, 3) and assignments.shape == (20, 6)
        # The number is welfare: everybody under the own representative, and neither the mean reward nor that of one
        welfare = np.take_along_axis(utilities, assignments[:, :, None], axis=2).mean(axis=(1, 2))
        np.testing.assert_allclose(written["results"][:, 0], welfare)
        assert (written["standard_errors"] == 0.0).all()
    assert callback.best_mean_reward == welfare.max() and callback.last_mean_reward == welfare[-1]
    best = RepresentedPPO.load(tmp_path / "best_model")
    assert evaluate_welfare(best, KnownAssignment(), 1).social_welfare == pytest.approx(welfare.max())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best_model.zip", "evaluations.npz"]


def test_training_stops_when_welfare_is_enough() -> None:
    callback = WelfareEvalCallback(
        KnownAssignment(), StopTrainingOnRewardThreshold(0.0, verbose=0), n_eval_episodes=1, eval_freq=5, verbose=0
    )
    assert known().learn(10_000, callback=callback).num_timesteps == 15


def test_training_stops_when_nothing_improves() -> None:
    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=2, min_evals=0, verbose=0)
    callback = WelfareEvalCallback(KnownAssignment(), None, stop, n_eval_episodes=1, eval_freq=2, verbose=0)
    # Within the first rollout nothing is learned: the first evaluation is the best, and three do not improve upon it
    assert known().learn(10_000, callback=callback).num_timesteps == 3 * 2 * 4


def test_statistics_of_vec_normalize_reach_the_evaluation() -> None:
    def make() -> VecNormalize:
        return VecNormalize(vectorized(lambda: time_limited(Drift()), 3), norm_reward=False)

    train, test = make(), make()
    model = RepresentedPPO("MlpPolicy", train, k=3, **SMALL)
    model.learn(48, callback=WelfareEvalCallback(test, n_eval_episodes=1, eval_freq=16, verbose=0))
    np.testing.assert_array_equal(test.obs_rms.mean, train.obs_rms.mean)


def test_a_frequency_that_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="eval_freq=0"):
        WelfareEvalCallback(KnownAssignment(), eval_freq=0)


# SB3's own callbacks, which know nothing of representatives


class At(BaseCallback):
    """Notes when it is called, what a function says of the model then, and ends the training after a number of calls."""

    def __init__(self, read: Callable[[Any], Any] = lambda model: None, n_calls: float = np.inf) -> None:
        super().__init__()
        self.read, self.max_calls = read, n_calls
        self.seen: list[tuple[int, Any]] = []

    def _on_step(self) -> bool:
        self.seen.append((self.num_timesteps, self.read(self.model)))
        return self.n_calls < self.max_calls


def logits(model: RepresentedPPO) -> list[np.ndarray]:
    """Logits of the actions of every representative, for two observations."""
    observations = th.as_tensor([[0.0, 0.0], [0.5, -0.5]])
    return [
        model.policy.get_distribution(observations, th.full((2,), j)).distribution.logits.detach().numpy()
        for j in range(model.k)
    ]


def test_checkpoints_are_the_model_as_it_was(tmp_path: Path) -> None:
    checkpoints = CheckpointCallback(save_freq=40, save_path=str(tmp_path), name_prefix="known", save_vecnormalize=True)
    then = At(lambda model: (logits(model), model.assignment.representatives))
    env = VecNormalize(vectorized(KnownAssignment, 3), norm_reward=False)
    model = RepresentedPPO("MlpPolicy", env, k=3, **SMALL)
    model.learn(5 * 48, callback=[checkpoints, EveryNTimesteps(120, then)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "known_120_steps.zip",
        "known_240_steps.zip",
        "known_vecnormalize_120_steps.pkl",
        "known_vecnormalize_240_steps.pkl",
    ]
    for timesteps, (expected, representatives) in then.seen:
        loaded = RepresentedPPO.load(tmp_path / f"known_{timesteps}_steps", device="cpu")
        np.testing.assert_array_equal(logits(loaded), expected)
        np.testing.assert_array_equal(loaded.assignment.representatives, representatives)
    assert not np.array_equal(then.seen[0][1][0], then.seen[1][1][0])  # between the two, something was learned


def test_training_stops_after_so_many_episodes() -> None:
    env = vectorized(lambda: time_limited(Drift(), 5), 4)
    model = RepresentedPPO("MlpPolicy", env, k=2, **SMALL)
    # 3 episodes in each of 4 environments, of 5 steps each
    assert model.learn(10_000, callback=StopTrainingOnMaxEpisodes(3)).num_timesteps == 3 * 5 * 4


def test_a_callback_in_a_list_ends_the_training_after_the_others_were_called() -> None:
    every, other = At(n_calls=2), At()
    model = known().learn(10_000, callback=CallbackList([EveryNTimesteps(20, every), CallbackList([other])]))
    assert [timesteps for timesteps, _ in every.seen] == [21, 42]  # steps are counted in threes
    assert [timesteps for timesteps, _ in other.seen] == list(range(3, 43, 3))
    assert model.num_timesteps == 42


def test_the_log_can_be_written_by_timesteps(tmp_path: Path) -> None:
    model = known()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(3 * 48, callback=LogEveryNTimesteps(24), log_interval=None)
    model.logger.close()
    with open(tmp_path / "progress.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["time/total_timesteps"]) for row in rows] == [24, 48, 72, 96, 120, 144]
    # Welfare is known when a rollout is complete: the line after it has it
    assert [bool(row["rollout/social_welfare"]) for row in rows] == [False, False, True, False, True, False]


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_the_progress_bar_of_sb3_ends_where_the_training_does() -> None:
    bar = ProgressBarCallback()
    model = known().learn(2 * 48, callback=bar)
    assert (bar.pbar.n, bar.pbar.total) == (96, 96)
    model.learn(48, reset_num_timesteps=False, callback=bar)
    assert (bar.pbar.n, bar.pbar.total) == (48, 48)
