"""Every command of the pages on the command line runs, with a budget cut down, and each finds what the ones before it left."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from click.testing import CliRunner

from sb3_rmdp.cli import main as cli
from sb3_rmdp.zoo.scripts import main as zoo

PAGE = Path(__file__).parents[2] / "docs" / "rl_zoo.md"

#: Options that make a training short, and the arguments of -params that go with them
SHORT = {"-n": "200", "--eval-freq": "100", "--eval-episodes": "1", "--n-trials": "1", "--save-freq": "100"}
SHORT_PARAMS = ["n_steps:32", "batch_size:32", "n_epochs:1"]


def commands() -> list[list[str]]:
    """Commands of the page in its order, those that install something left out, and of the configuration it shows."""
    text = PAGE.read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"^```bash\n(.*?)^```$", text, re.M | re.S) for line in block.splitlines()]
    return [shlex.split(line) for line in lines if not line.startswith("pip ")]


def cut(words: list[str]) -> list[str]:
    """
    :param words: a command
    :return: the same with a small budget
    """
    if "train" not in words:
        return words
    quick = "rmdp/ResourceGathering-v0" in words  # evaluations on others take their thousand steps an episode
    for option, value in SHORT.items():
        if option in words:
            words[words.index(option) + 1] = value
        elif option in ("-n", "--eval-episodes") or (option == "--eval-freq" and quick):
            words += [option, value]
    if "-params" in words:
        place = words.index("-params") + 1
        return words[:place] + SHORT_PARAMS + words[place:]
    return [*words, "-params", *SHORT_PARAMS]


def test_a_budget_is_cut() -> None:
    assert cut(["zoo", "train", "-n", "5", "-params", "k:2"]) == [
        *["zoo", "train", "-n", "200", "-params", *SHORT_PARAMS, "k:2", "--eval-episodes", "1"]
    ]
    assert cut(["zoo", "enjoy", "-n", "5"]) == ["zoo", "enjoy", "-n", "5"]


@pytest.mark.usefixtures("short_rollouts")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore:rich is experimental")
def test_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rl_zoo3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    plt.switch_backend("Agg")
    configuration = re.search(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert configuration is not None
    Path("my_hyperparams.yml").write_text(configuration.group(1), encoding="utf-8")
    done = []
    for words in commands():
        assert words[:3] == ["python", "-m", "sb3_rmdp.zoo"]
        if "--track" in words:
            words.remove("--track")  # wants wandb
        # Checkpoints of a short run have other numbers, and a study of one trial has no trial 3
        words = ["100" if word == "100000" and "enjoy" in words else word for word in words]
        if "--trial-id" in words:
            zoo(cut(words[3:-2] + ["-optimize", "--n-trials", "1"]))  # so that there is a trial 1
            words[-1] = "1"
        zoo(cut(words[3:]))
        plt.close("all")
        done.append(words[3])
    assert set(done) == {"train", "enjoy", "record_video", "plot_train", "all_plots", "plot_from_file"}
    printed = capsys.readouterr().out
    assert printed.count("Wrote runs/zoo/rppo/") == done.count("train") - 1  # each training its card, but not the study
    assert "Mean reward: " in printed and "The mean reward is social welfare" in printed
    for path in ("runs/tb", "runs/all.pkl", "runs/all.svg", "runs/study.db"):
        assert Path(path).exists()
    assert list(Path("runs/zoo/rppo/rmdp-ResourceGathering-v0_1").parent.rglob("*.mp4"))

    # The same run by the console script
    result = CliRunner().invoke(
        cli, ["evaluate", "runs/zoo/rppo/rmdp-ResourceGathering-v0_1/best_model.zip", "--episodes", "1"]
    )
    assert result.exit_code == 0 and "Social welfare" in result.output
