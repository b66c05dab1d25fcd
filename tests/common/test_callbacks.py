"""Callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    BaseCallback,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rmdp import RepresentedPPO, evaluate_welfare
from sb3_rmdp.common.callbacks import AnnealCallback, WelfareEvalCallback, WelfareProgressBarCallback
from tests.probes import Drift, KnownAssignment, time_limited, vectorized

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu")


def known() -> RepresentedPPO:
    return RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), k=3, **(SMALL | {"learning_rate": 3e-3}))


def test_annealing_moves_linearly_over_the_whole_training() -> None:
    class Watch(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.values: list[float] = []

        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.values.append(self.model.ent_coef)

    watch = Watch()
    known().learn(4 * 48, callback=[AnnealCallback("ent_coef", 1.0, 0.2), watch])
    np.testing.assert_allclose(watch.values, [1.0, 0.8, 0.6, 0.4])


@pytest.mark.parametrize("attribute", ["entropy", "policy", "normalize_advantage"])
def test_only_numbers_are_annealed(attribute: str) -> None:
    with pytest.raises(ValueError, match=f"attribute='{attribute}'.*only a number"):
        known().learn(48, callback=AnnealCallback(attribute, 1.0, 0.0))


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
