"""Folders of curves: one curve at a time, models that are found are those that were asked for, and no kill leaves anything."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.budget import BudgetCurve, budget_curve
from sb3_rmdp.budget.describing import described
from sb3_rmdp.budget.folder import SETTINGS, folder_for
from sb3_rmdp.common.files import read_model_data
from sb3_rmdp.common.locks import locked_folder
from tests.budget.test_curve import SMALL, Trained, curve_of
from tests.kills import kills

ROOT = Path(__file__).parents[2]


class Room(gym.Env):
    """Pays everybody for one action."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(4)
    n_agents = 2

    def __init__(self, wanted: int = 0):
        self.wanted = wanted

    def reset(self, **_: Any) -> tuple[np.ndarray, dict]:
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        paid = np.full(2, action == self.wanted, np.float32)
        return np.zeros(1, np.float32), float(paid.mean()), True, False, {"reward_vector": paid}


def room(env: Any, folder: Path, transitions: int = 2048, **kwargs: Any) -> float:
    small = dict(n_steps=256, learning_rate=1e-2, device="cpu", **kwargs)
    curve = budget_curve(
        env, k=1, transitions_per_policy=transitions, folder=folder, model_kwargs=small, env_kwargs={}, n_eval_episodes=1
    )
    return curve.points[0].welfare


def test_other_functions_never_find_the_models_of_others(tmp_path: Path) -> None:
    assert room(lambda: Room(0), tmp_path / "a") == 1.0
    with pytest.raises(ValueError, match=r"was made with env='.*<lambda> \(code \w+\)', and .* is asked for: choose another"):
        room(lambda: Room(1), tmp_path / "a")
    assert room(lambda: Room(1), tmp_path / "b") == 1.0


def test_the_same_functions_find_their_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    for name, env in {"lambda": lambda: Room(0), "partial": functools.partial(Room, 0)}.items():
        for clip_range in (lambda _: 0.2, functools.partial(max, 0.2)):
            path = tmp_path / f"{name} {type(clip_range).__name__}"
            first = room(env, path, 256, clip_range=clip_range)
            with monkeypatch.context() as patch:
                patch.setattr(RepresentedPPO, "learn", learn)
                assert room(env, path, 256, clip_range=clip_range) == first


LIMIT = 3
STATE = {"a": [1, 2]}


def helper() -> int:
    return LIMIT


def describe_twice(make: Any) -> list[Any]:
    return [described(make(0), strict=True), described(make(0), strict=True), described(make(1), strict=True)]


@pytest.mark.parametrize(
    "make",
    [
        lambda value: lambda: value,
        lambda value: lambda x=value: x,
        lambda value: lambda *, x=value: x,
        lambda value: functools.partial(Room, value),
        lambda value: functools.partial(Room, wanted=value),
        lambda value: functools.partial(functools.partial, lambda: value),
        lambda value: Room(value).step,
        lambda value: [Room(value)],
        lambda value: np.full(3, value),
        lambda value: {f"a{value}", "b", "c"},
        lambda value: (lambda: Room(1)) if value else (lambda: Room(0)),
        lambda value: (lambda x: x in {"a", "b"}) if value else (lambda x: x in {"a", "c"}),
        lambda value: (lambda: (lambda: 1)) if value else (lambda: (lambda: 1.0)),
        lambda value: (lambda: -1) if value else (lambda: +1),
        lambda value: (lambda a: a.x) if value else (lambda a: a.y),
    ],
)
def test_what_differs_is_described_differently_and_what_does_not_alike(make: Any) -> None:
    one, again, other = describe_twice(make)
    assert one == again != other
    assert json.loads(json.dumps(one)) == one


def test_what_functions_find_in_their_module_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = described(helper), described(lambda: helper()), described(lambda: STATE)
    assert before[0] == described(helper)
    monkeypatch.setitem(globals(), "LIMIT", 4)
    monkeypatch.setitem(globals(), "STATE", {"a": [1, 3]})
    after = described(helper), described(lambda: helper()), described(lambda: STATE)
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_functions_may_lead_back_to_themselves() -> None:
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    assert "factorial (code " in described(factorial, strict=True)


DESCRIBED = [helper, functools.partial(Room, 1), {"a", "b", "c"}, Room(2), lambda x: x in {"a", "b", "c"}]


def test_descriptions_are_the_same_in_another_process() -> None:
    code = (
        "import json; from tests.budget.test_folder import DESCRIBED, described; print(json.dumps(described(DESCRIBED, True)))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert json.loads(said) == described(DESCRIBED, strict=True)


def test_objects_that_cannot_be_told_apart_are_refused_where_models_are_kept(tmp_path: Path) -> None:
    class Opaque:
        __slots__ = ()

        def __call__(self) -> gym.Env:
            return Room()

    with pytest.raises(ValueError, match=r"cannot be told from other objects of its class, .*Opaque"):
        room(Opaque(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    curve_of(env=Opaque(), k=1, env_kwargs={})  # nothing is kept, and nothing found


def test_a_model_tells_its_settings_itself(tmp_path: Path) -> None:
    curve_of(folder=tmp_path, k=2)
    record = tmp_path / "k2_seed0.json"
    settings = json.loads(record.read_text())["settings"]
    assert read_model_data(tmp_path / "k2_seed0.zip", (), "")[SETTINGS] == settings
    assert getattr(RepresentedPPO.load(tmp_path / "k2_seed0.zip", device="cpu"), SETTINGS) == settings
    # Of two runs into one folder, the record may be of one and the model of the other
    record.write_text(json.dumps({"settings": {**settings, "transitions_per_policy": 40}}))
    with pytest.raises(ValueError, match=r"k2_seed0.zip was made with transitions_per_policy=20, and 40 is asked for"):
        curve_of(folder=tmp_path, k=2, transitions_per_policy=40)


def test_a_model_of_an_earlier_version_goes_by_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("sb3_rmdp.budget.folder.SETTINGS", "something_else")
        curve_of(folder=tmp_path, k=1)
    untrained = Trained()
    curve_of(folder=tmp_path, k=1, callback=untrained)
    with pytest.raises(ValueError, match="transitions_per_policy=20, and 40"):
        curve_of(folder=tmp_path, k=1, transitions_per_policy=40, callback=untrained)
    (tmp_path / "k1_seed0.json").write_text("")
    with pytest.raises(ValueError, match="does not tell its settings"):
        curve_of(folder=tmp_path, k=1, callback=untrained)
    assert not untrained.seen


@pytest.mark.parametrize(("model", "record"), [(b"", None), (b"\0" * 5000, None), (b"", b""), (None, b""), (None, b"{")])
def test_what_a_power_cut_left_is_trained_again(model: bytes | None, record: bytes | None, tmp_path: Path) -> None:
    whole = curve_of(folder=tmp_path)
    content = (tmp_path / "k2_seed0.json").read_bytes()
    (tmp_path / "k2_seed0.zip").unlink()
    if model is not None:
        (tmp_path / "k2_seed0.zip").write_bytes(model)
    if record is not None:
        (tmp_path / "k2_seed0.json").write_bytes(record)
    again = Trained()
    assert curve_of(folder=tmp_path, callback=again).points == whole.points
    assert again.seen == [(2, 0)] and (tmp_path / "k2_seed0.json").read_bytes() == content


def test_an_empty_record_beside_a_finished_model_does_no_harm(tmp_path: Path) -> None:
    curve_of(folder=tmp_path, k=1)
    (tmp_path / "k1_seed0.json").write_text("")
    untrained = Trained()
    curve_of(folder=tmp_path, k=1, callback=untrained)
    assert not untrained.seen


def test_one_curve_at_a_time(tmp_path: Path) -> None:
    untrained = Trained()
    with locked_folder(tmp_path, "another budget curve"):
        with pytest.raises(ValueError, match=f"another budget curve is writing to {tmp_path}: wait"):
            curve_of(folder=tmp_path, callback=untrained)
    assert not untrained.seen
    curve_of(folder=tmp_path)
    with locked_folder(tmp_path, "another budget curve"):  # which may train what this one does not ask for
        curve_of(folder=tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"k{k}_seed0.{end}" for k in (1, 2, 4) for end in ("json", "zip")]


def test_two_curves_do_not_mix(tmp_path: Path) -> None:
    """The second one begins while the first one trains."""

    class Second(Trained):
        def _on_training_start(self) -> None:
            super()._on_training_start()
            said = "was made with transitions_per_policy=20" if self.seen[1:] else "another budget curve is writing to"
            with pytest.raises(ValueError, match=said):
                curve_of(folder=tmp_path, transitions_per_policy=40)

    first = Second()
    curve_of(folder=tmp_path, callback=first)
    assert first.seen == [(1, 0), (2, 0), (4, 0)]
    for k in (1, 2, 4):
        record = json.loads((tmp_path / f"k{k}_seed0.json").read_text())["settings"]
        model = RepresentedPPO.load(tmp_path / f"k{k}_seed0.zip", device="cpu")
        assert record["transitions_per_policy"] == 20 and 20 <= model.num_timesteps / k < 40
    assert not list(tmp_path.glob(".*"))


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_kill_loses_no_finished_model_and_leaves_nothing(tmp_path: Path) -> None:
    whole, folder = curve_of(k=1, folder=tmp_path / "whole"), tmp_path / "folder"
    n_kills = 0
    for _ in kills(lambda: curve_of(k=1, folder=folder), folder):
        n_kills += 1
        model = folder / "k1_seed0.zip"
        assert not model.exists() or read_model_data(model, ("k",), "")["k"] == 1
    assert n_kills > 5 and curve_of(k=1, folder=folder).points == whole.points
    assert sorted(path.name for path in folder.iterdir()) == ["k1_seed0.json", "k1_seed0.zip"]


def test_a_folder_that_may_not_be_written_to_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    untrained = Trained()
    with pytest.raises(OSError, match=r"cannot be written, since .*file is no folder: give another place"):
        curve_of(folder=tmp_path / "file" / "folder", callback=untrained)
    assert not untrained.seen


@pytest.mark.parametrize(
    "change",
    [
        dict(rows=[]),
        dict(rows=[3]),
        dict(n_agents="six"),
        dict(n_agents=0),
        dict(n_eval_episodes=True),
        dict(deterministic="yes"),
        dict(settings=[]),
        dict(env=3),
    ],
)
def test_curves_of_other_kinds_of_values_are_refused(change: dict, tmp_path: Path) -> None:
    content = curve_of(k=1, model_kwargs=SMALL).as_dict()
    row = json.loads(json.dumps(content["rows"][0]))
    path = tmp_path / "curve.json"
    rows = [{**row, name: wrong} for name, wrong in (("k", 1.5), ("welfare", "8"), ("optimum", []), ("started_from", 3))]
    for wrong in ({**content, **change}, *({**content, "rows": [one]} for one in rows)):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=r"curve.json holds no budget curve of this version"):
            BudgetCurve.load(path)


@pytest.mark.parametrize("text", ['{"format": 1, "format": 2}', "[" * 100_000, "\udce9", "\0", ""])
def test_files_that_are_no_json(text: str, tmp_path: Path) -> None:
    (tmp_path / "curve.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"curve.json holds no budget curve of this version"):
        BudgetCurve.load(tmp_path / "curve.json")


def test_folders_of_curves_are_made(tmp_path: Path) -> None:
    with folder_for(tmp_path / "a" / "b"):
        pass
    assert (tmp_path / "a" / "b").is_dir()
