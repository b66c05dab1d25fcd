"""Trainings of RL Zoo that go on from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs import ResourceGatheringEnv
from sb3_rmdp.envs.states import env_state, set_env_state

pytest.importorskip("rl_zoo3")

from tests.represented_ppo.test_save_load import assert_equal_states
from tests.zoo.running import GRID, SMALL, name_of, train


def trained(run_folder: Path) -> RepresentedPPO:
    return RepresentedPPO.load(run_folder / f"{name_of(GRID)}.zip", device="cpu")


def test_a_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options, the seed that RL Zoo has drawn, statistics of VecNormalize and evaluations are those of the first training."""
    params = dict(
        normalize="dict(norm_obs=True, norm_reward=False)", normalize_observations=False, learning_rate="lin_1e-3_1e-4"
    )
    unbroken = train(tmp_path, params=params, n_timesteps=1152, save_freq=3 * 100, eval_freq=3 * 90)
    checkpoint = unbroken / "rl_model_600_steps.zip"
    again = train_on(tmp_path, checkpoint)
    assert again != unbroken and "Going on after 600 timesteps: 552 are left" in capsys.readouterr().out
    assert_equal_states(trained(again).get_parameters(), trained(unbroken).get_parameters())
    evaluations = [np.load(folder / "evaluations.npz") for folder in (unbroken, again)]
    for name in ("timesteps", "results", "ep_lengths"):
        np.testing.assert_array_equal(evaluations[0][name], evaluations[1][name])


def train_on(tmp_path: Path, checkpoint: Path, *words: str) -> Path:
    from sb3_rmdp.zoo import run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sb3_rmdp.zoo.experiment.write_model_card", lambda run_folder, **_: run_folder / "model_card.md")
        path = run("train", ["--resume", str(checkpoint), *words])
    assert path is not None
    return path


def test_ctrl_c_and_then_on(tmp_path: Path) -> None:
    unbroken = train(tmp_path, n_timesteps=576, seed=3)
    stopped = train(tmp_path, params={"callback": [{"tests.zoo.callbacks.Interrupt": dict(at=100)}]}, n_timesteps=576, seed=3)
    assert trained(stopped).num_timesteps < 576
    without_ctrl_c = ["--hyperparams", *(f"{name}:{value}" for name, value in SMALL.items())]
    again = train_on(tmp_path, stopped / f"{name_of(GRID)}.zip", *without_ctrl_c)
    assert_equal_states(trained(again).get_parameters(), trained(unbroken).get_parameters())


def test_rl_zoos_time_limit_is_gymnasiums() -> None:
    """One is there where RL Zoo was imported before the environment was made, the other where it was not."""
    from rl_zoo3.gym_patches import PatchedTimeLimit

    theirs, ours = (limit(ResourceGatheringEnv(), 30) for limit in (PatchedTimeLimit, PatchedTimeLimit.__base__))
    assert type(theirs) is not type(ours)
    for env in (theirs, ours):
        env.reset()
    theirs.step(0)
    set_env_state(ours, env_state(theirs))
    assert ours._elapsed_steps == 1
    np.testing.assert_array_equal(ours.step(1)[0], theirs.step(1)[0])


def test_what_cannot_be_resumed_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = train(tmp_path)
    model = done / f"{name_of(GRID)}.zip"
    elsewhere = tmp_path / "elsewhere.zip"
    elsewhere.write_bytes(model.read_bytes())
    for checkpoint, message in (
        (model, "nothing is left to resume: 384 of 384"),
        (elsewhere, "lies in no folder of a training"),
        (tmp_path / "missing.zip", "there is no such checkpoint"),
    ):
        with pytest.raises(SystemExit):
            train_on(tmp_path, checkpoint)
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert message in line
    assert trained(train_on(tmp_path, model, "-n", "576")).num_timesteps == 576
