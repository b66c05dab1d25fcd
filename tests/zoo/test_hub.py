"""Models on the Hugging Face hub: pushed and downloaded by RL Zoo's scripts, with a folder in the place of the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sb3_rmdp import RepresentedPPO
from tests.probes import Waiting
from tests.vec_env.test_welfare import K, known_model

pytest.importorskip("rl_zoo3")
from huggingface_hub import ModelCard
from huggingface_hub.errors import RemoteEntryNotFoundError

from sb3_rmdp.zoo import run
from tests.zoo.running import WAITING, enjoy, name_of, train

NAME = name_of(WAITING)
NORMALIZED = dict(normalize=dict(norm_obs=True, norm_reward=False))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of repositories."""
    folder = tmp_path / "remote"

    class Api:
        def create_repo(self, repo_id: str, **_: Any) -> str:
            (folder / repo_id).mkdir(parents=True, exist_ok=True)
            return f"file://{folder / repo_id}"

        def snapshot_download(self, repo_id: str, local_dir: Path) -> None:
            shutil.copytree(folder / repo_id, local_dir, dirs_exist_ok=True)

        def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> None:
            shutil.copytree(folder_path, folder / repo_id, dirs_exist_ok=True)

    response: Any = SimpleNamespace(headers={}, request=None)

    def load_from_hub(repo_id: str, filename: str) -> str:
        path = folder / repo_id / filename
        if not path.is_file():
            raise RemoteEntryNotFoundError(f"404: {filename}", response=response)
        return str(path)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_sb3.load_from_hub", load_from_hub)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("params", [{}, NORMALIZED], ids=["raw", "normalized"])
def test_there_and_back(params: dict[str, Any], hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known_model().save(tmp_path / "known.zip")
    kept: dict[str, Any] = dict(learning_rate=0.0, k=K, assignment="fixed", n_steps=8, batch_size=8, **params)
    options: dict[str, Any] = dict(n_timesteps=48, eval_freq=24, trained_agent=tmp_path / "known.zip")
    run_folder = train(tmp_path, env=WAITING, params=kept, **options)
    words = ["--algo", "rppo", "--env", WAITING, "-orga", "somebody"]
    run("push_to_hub", [*words, "-f", str(tmp_path / "logs"), "--no-render"])

    repository = hub / "somebody" / f"rppo-{NAME}"
    results = json.loads((repository / "results.json").read_text())
    assert results["n_eval_episodes"] % K == 0 and results["mean_reward"] == pytest.approx(Waiting.welfare)
    card = ModelCard.load(repository / "README.md")
    (metric,) = card.data.eval_results
    assert metric.metric_value.startswith("7.00 ") and metric.dataset_name == WAITING
    assert card.data.model_name == "RepresentedPPO"

    run("load_from_hub", [*words, "-f", str(tmp_path / "downloads" / "logs")])
    downloaded = tmp_path / "downloads" / "logs" / "rppo" / f"{NAME}_1"
    assert (downloaded / NAME / "vecnormalize.pkl").is_file() == bool(params)
    with np.load(downloaded / "evaluations.npz") as one, np.load(run_folder / "evaluations.npz") as other:
        np.testing.assert_array_equal(one["results"], other["results"])
    assert RepresentedPPO.load(downloaded / f"{NAME}.zip", device="cpu").k == K
    capsys.readouterr()
    enjoy(tmp_path / "downloads", env=WAITING)
    assert "Mean reward: 7.00 " in capsys.readouterr().out


def test_what_is_not_on_the_hub(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("load_from_hub", ["--algo", "rppo", "--env", WAITING, "-orga", "nobody", "-f", str(tmp_path / "logs")])
    assert end.value.code == 2 and f"rppo-{NAME}.zip" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()
