"""The file: what a reviewer reads, whole or not at all, and nothing that is not in it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_rmdp import RepresentedPPO, __version__, evaluate_welfare
from sb3_rmdp.approval import sections, wording, write_report
from sb3_rmdp.approval.html import Markup, element
from sb3_rmdp.approval.provenance import provenance
from sb3_rmdp.common.seeds import seed_evaluation
from tests.approval.pages import Page
from tests.approval.probes import SMALL, Noisy, NoisyFactored, make_model
from tests.probes import vectorized

GRID = "rmdp/ResourceGathering-v0"
KWARGS: dict[str, Any] = dict(shape=(3, 3), home=(2, 1))
GROUPS = [0, 1, 0, 1, 0, 0]
DATE = datetime(2026, 1, 2, 3, 4, tzinfo=timezone.utc)
QUICK: dict[str, Any] = dict(n_eval_episodes=3, seeds=2, deterministic=False, date=DATE)


def write_grid(folder: Path, **kwargs: Any) -> Path:
    """A report on nine agents, one of whose three representatives serves nobody."""
    env = make_vec_env(GRID, 3, env_kwargs=KWARGS)
    make_model(env, [0, 2, 0, 2, 0, 2, 0, 2, 0], k=3).save(folder / "model.zip")
    model = RepresentedPPO.load(folder / "model.zip", device="cpu")
    options = {"saved_as": folder / "model.zip", **QUICK, **kwargs}
    write_report(model, env, folder / "report.html", json_path=folder / "numbers", **options)
    return folder


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_grid(tmp_path_factory.mktemp("grid"))


def test_a_page_that_loads_nothing(grid: Path) -> None:
    text = (grid / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.addresses() and all(address.startswith(("#", "data:")) for address in page.addresses())
    assert not re.search(r"https?:|url\(|@import|<script|<iframe|<object", text)
    assert len(text) < 1_000_000
    # Links lead somewhere, and no two elements have one name
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(names)) == len(names)
    assert {a["href"][1:] for a in page.all("a")} <= set(names)
    labels = {attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes}
    assert labels <= set(names)


def test_a_page_that_everybody_can_read(grid: Path) -> None:
    page = Page.read(grid / "report.html")
    assert [attributes["lang"] for attributes in page.all("html")] == ["en-GB"]
    assert len(page.all("title")) == len(page.all("h1")) == len(page.all("main")) == len(page.all("nav")) == 1
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) > 10
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    assert len(page.all("section")) == len(sections.TITLES)
    assert page.tables.keys() >= {"Environment, agents and training", "Social welfare by seed", "Software"}


def test_what_was_trained(grid: Path) -> None:
    page = Page.read(grid / "report.html")
    facts = dict(row[:2] for row in page.tables["Environment, agents and training"])
    content = (grid / "model.zip").read_bytes()
    assert facts["its SHA-256"] == hashlib.sha256(content).hexdigest()
    assert facts["Model file"] == f"model.zip, {len(content)} bytes"
    assert facts["Environment"] == GRID and facts["its shape"] == "[3, 3]" and facts["Representatives"] == "3"
    assert facts["Population"] == "resource-gathering-3x3-home2,1" and facts["Agents"].startswith("9, a reward each")
    assert facts["Assignment"].startswith("fixed (representatives=") and facts["Seed of the training"] == "3"
    settings = dict(page.tables["Arguments of RepresentedPPO"][1:])
    assert (
        settings["n_steps"] == "16" and settings["learning_rate"] == "0.0003" and "ConstantSchedule" in settings["clip_range"]
    )
    assert settings["rollout_buffer_class"] == "VectorRewardRolloutBuffer"
    versions = {row[0]: row[1:] for row in page.tables["Software"]}
    assert versions["torch"][0] == versions["torch"][1] and versions["numpy"] == [np.__version__] * 2
    assert versions["sb3_rmdp"] == [__version__] * 2
    assert "2026-01-02" in page.text


def test_numbers_of_the_page_are_those_of_evaluate_welfare(grid: Path) -> None:
    page = Page.read(grid / "report.html")
    model = RepresentedPPO.load(grid / "model.zip", device="cpu")
    results = []
    for seed in (0, 1):
        env = make_vec_env(GRID, 3, env_kwargs=KWARGS)
        seed_evaluation(env, seed)
        results.append(evaluate_welfare(model, env, 3, deterministic=False))
    utilities = np.mean([one.utilities for one in results], axis=0)
    own = utilities[np.arange(9), model.assignment.representatives]
    assert own.mean() > 0.0  # or else nothing is compared
    by_seed = page.tables["Social welfare by seed"]
    for row, one in zip(by_seed[1:], results, strict=False):
        assert row[1].startswith(f"{one.social_welfare:.2f} ±")
    assert page.tables["Welfare and inequality"][0][1].startswith(f"{own.mean():.2f} ±")
    (caption,) = [name for name in page.tables if name.startswith("Mean utility and worst off")]
    for j, row in enumerate(page.tables[caption][1:]):
        served = model.assignment.representatives == j
        mean = f"{utilities[served, j].mean():.2f}" if served.any() else "-"
        assert row[:2] == [str(j), str(served.sum())] and row[2].split(" ±")[0] == mean
        assert row[4] == f"{utilities[:, j].mean():.2f}"
    # Straight to the tile and home: 9 agents around a home in the middle of the lower row
    (worst,) = [rows for name, rows in page.tables.items() if name.startswith("Agents with the lowest")]
    assert worst[0][-1] == "gain: at most" and len(worst) == 10
    # Of six episodes the first, third and fifth choose, and the others measure: the second, and two of the second seed
    halves = [one.half_utilities for one in results]
    assert halves[0] is not None and halves[1] is not None
    choose, measure = (2 * halves[0][0] + halves[1][1]) / 3, (halves[0][1] + 2 * halves[1][0]) / 3
    served_by = model.assignment.representatives
    assert [int(row[0]) for row in worst[1:]] == np.argsort(choose[np.arange(9), served_by], kind="stable").tolist()
    for row in worst[1:]:
        agent = int(row[0])
        steps = 2 * (abs(agent // 3 - 2) + abs(agent % 3 - 1)) or 1
        utility = measure[agent, served_by[agent]]
        assert row[-1] == f"{100 - steps - utility:+.2f}" and row[2].split(" ±")[0] == f"{utility:.2f}"

    numbers = json.loads((grid / "numbers.json").read_text())
    np.testing.assert_allclose(numbers["result"]["utilities"], utilities)
    np.testing.assert_array_equal(numbers["by_seed"][1]["utilities"], results[1].utilities)
    assert numbers["provenance"]["date"] == str(DATE) and numbers["seeds"] == [0, 1]
    assert [row["agents"] for row in numbers["representatives"]] == [[0, 2, 4, 6, 8], [], [1, 3, 5, 7]]
    assert {row["why_not"] for row in numbers["stress"]} == {"", "the environment is not one of MuJoCo"}


def test_representatives_and_their_pictures(grid: Path) -> None:
    page = Page.read(grid / "report.html")
    assert "Representative 0: serves 5 agents" in page.text and "Representative 1: serves nobody" in page.text
    frames = [attributes for attributes in page.all("img") if re.match(r"Representative \d after", attributes["alt"])]
    assert {frame["alt"][15] for frame in frames} == {"0", "1", "2"} and len(frames) <= 18
    assert "Serving nobody: representative 1." in page.text
    stress = page.tables["Social welfare and the worst-off agent under other conditions"]
    assert ["gravity -10 %", "not applicable: the environment is not one of MuJoCo"] in stress


def test_the_same_report_again(grid: Path, tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes((grid / "model.zip").read_bytes())
    model = RepresentedPPO.load(tmp_path / "model.zip", device="cpu")
    env = make_vec_env(GRID, 3, env_kwargs=KWARGS)
    write_report(model, env, tmp_path / "again", saved_as=tmp_path / "model", **QUICK)
    assert (tmp_path / "again.html").read_bytes() == (grid / "report.html").read_bytes()


NASTY = "<script>alert('x')</script> & \"y\""


def test_whatever_the_user_says_is_text(tmp_path: Path) -> None:
    nasty = type(NASTY, (Noisy,), {"population_id": NASTY})
    env = vectorized(nasty, 2)
    model = make_model(env, GROUPS)
    write_report(model, env, tmp_path / "report.html", title=NASTY, stress={NASTY: lambda env: env}, **QUICK)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert "<script" not in text and not page.all("script")
    assert page.text.count(NASTY) >= 4  # title, heading, population, environment, stress


def test_names_that_are_no_formulas_and_no_text(tmp_path: Path) -> None:
    """Neither a formula that is broken nor a Latin-1 file name ends a report when all evaluations are done."""
    env = vectorized(Noisy, 2)
    path, name = tmp_path / os.fsdecode(b"caf\xe9.zip"), r"$\frac{$"
    make_model(env, GROUPS).save(path)
    stress: Any = {name: lambda env: env, os.fsdecode(b"\xe9"): lambda env: env}
    write_report(path, env, tmp_path / os.fsdecode(b"\xe9.html"), stress=stress, **QUICK)
    text = (tmp_path / os.fsdecode(b"\xe9.html")).read_text()
    assert name in Page(text).text and "caf\\udce9.zip" in text


def test_markup() -> None:
    assert element("a", "<", Markup("<b>"), href='"&') == '<a href="&quot;&amp;">&lt;<b></a>'


@pytest.mark.parametrize(
    ("probe", "groups", "kwargs"),
    [
        (Noisy, [0] * 6, {}),
        (NoisyFactored, [0, 1, 2, 2, 0, 1, 0], {}),
        (Noisy, [0, 1, 2, 3, 4, 5], dict(n_eval_episodes=1, seeds=1)),
        (Noisy, [0, 1, 0, 1, 0, 0], dict(stress=False, frames=0, own_policy_utilities=[9.0] * 6)),
    ],
)
def test_awkward_shapes(probe: type[Noisy], groups: list[int], kwargs: dict[str, Any], tmp_path: Path) -> None:
    env = vectorized(probe, 2)
    model = make_model(env, groups)
    findings = write_report(model, env, tmp_path / "report.html", **{**QUICK, **kwargs})
    page = Page.read(tmp_path / "report.html")
    assert ("Stress" in page.text) == kwargs.get("stress", True)
    assert ("gain: policy of its own, given" in page.text) == ("own_policy_utilities" in kwargs)
    assert "none: the report was written for a model in memory" in page.text
    assert ("One episode per representative: how reliable" in page.text) == (findings.result.n_eval_episodes == 1)
    if probe is NoisyFactored:
        assert "7, factored: 2 reward features" in page.text
    if "frames" not in kwargs:
        assert "No pictures: the environment was not made by gymnasium.make" in page.text


def test_a_file_and_an_id_will_do(tmp_path: Path) -> None:
    make_model(make_vec_env("probe/Painted-v0", 2), GROUPS).save(tmp_path / "model")
    findings = write_report(tmp_path / "model", "probe/Painted-v0", tmp_path / "new" / "report", **QUICK)
    assert findings.provenance.file is not None and findings.provenance.file.name == "model.zip"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
    single = write_report(tmp_path / "model", gym.make("probe/Painted-v0"), tmp_path / "single.html", **QUICK)
    assert single.provenance.env_id == "probe/Painted-v0"


def test_nothing_is_left_of_a_report_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = vectorized(Noisy, 2)
    model = make_model(env, GROUPS)
    old = tmp_path / "report.html"
    old.write_text("old")

    def fail(*_: Any) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(sections, "stability", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        write_report(model, env, old, json_path=tmp_path / "numbers.json", **QUICK)
    with pytest.raises(RuntimeError, match="in the middle"):
        write_report(model, env, tmp_path / "deep" / "report.html", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"] and old.read_text() == "old"


def refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("nothing may be evaluated")


def test_what_is_wrong_is_said_before_anything_takes_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_rmdp.approval.report.collect_findings", refuse)
    env = vectorized(Noisy, 2)
    model = make_model(env, GROUPS)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file is no folder: give another place"):
        write_report(model, env, tmp_path / "file" / "report.html")
    with pytest.raises(IsADirectoryError, match="is a folder, give a file in it"):
        (tmp_path / "x.html").mkdir()
        write_report(model, env, tmp_path / "x.html")
    with pytest.raises(OSError, match="is no folder"):
        write_report(model, env, tmp_path / "report.html", json_path=tmp_path / "file" / "numbers.json")
    with pytest.raises(ValueError, match="n_agents=7, the model was made for 6"):
        write_report(model, vectorized(NoisyFactored, 1), tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        write_report(tmp_path / "missing.zip", env, tmp_path / "report.html")
    model.save(tmp_path / "model.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "model.zip").read_bytes()[:5000])
    with pytest.raises(ValueError, match="not a complete zip file"):
        write_report(tmp_path / "cut.zip", env, tmp_path / "report.html")
    PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16, device="cpu").save(tmp_path / "ppo.zip")
    with pytest.raises(ValueError, match="no model of RepresentedPPO"):
        write_report(tmp_path / "ppo.zip", env, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("package", ["matplotlib", "PIL"])
def test_without_what_draws(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("page", "sections", "figures"):
        monkeypatch.delitem(sys.modules, f"sb3_rmdp.approval.{name}", raising=False)
        monkeypatch.delattr(f"sb3_rmdp.approval.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    env = vectorized(Noisy, 1)
    with pytest.raises(ImportError, match=rf'without {package}: pip install "sb3_rmdp\[plots\]"'):
        write_report(make_model(env, GROUPS), env, tmp_path / "report.html")


def test_many_agents_in_a_line() -> None:
    assert wording.ranges(np.arange(1000)) == "0-999"
    assert wording.ranges(np.arange(0, 1000, 2)).endswith("118, and others up to 998")


def test_schedules_are_told_as_the_file_has_them(tmp_path: Path) -> None:
    env = vectorized(Noisy, 1)
    settings: dict[str, Any] = {**SMALL, "learning_rate": lambda progress: 1e-3 * progress}
    RepresentedPPO("MlpPolicy", env, k=2, **settings).save(tmp_path / "model.zip")
    model = RepresentedPPO.load(tmp_path / "model.zip", device="cpu", custom_objects={"learning_rate": 0.0})
    told = provenance(model, env, tmp_path / "model.zip").hyperparameters
    assert "function" in told["learning_rate"] and told["gamma"] == "0.99"
