"""Files from others: nothing in them is executed unless they are trusted."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common import attributes
from sb3_rmdp.common.assignment import ASSIGNMENTS, RandomAssignment
from tests.probes import KnownAssignment, vectorized

SMALL: dict[str, Any] = dict(k=3, n_steps=16, batch_size=8, n_epochs=1, seed=0, device="cpu", assignment="em")
OBS = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)


class OwnExtractor(FlattenExtractor):
    pass


class OwnAssignment(RandomAssignment):
    pass


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def make(**kwargs: Any) -> RepresentedPPO:
    return RepresentedPPO("MlpPolicy", vectorized(KnownAssignment, 3), **(SMALL | kwargs))


def saved(path: Path, **kwargs: Any) -> RepresentedPPO:
    model = make(**kwargs)
    model.save(path)
    return model


def data_of(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("data"))


def rewrite(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**content, **members}.items():
            archive.writestr(name, data)


def forge(path: Path, attribute: str, value: Any) -> None:
    rewrite(path, data=json.dumps({**data_of(path), attribute: value}).encode())


def pickled(value: Any) -> dict[str, str]:
    return {":type:": "", ":serialized:": base64.b64encode(pickle.dumps(value)).decode()}


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another program, which has not written the file itself."""
    monkeypatch.setattr(attributes, "remember", lambda content: None)
    monkeypatch.setattr("sb3_rmdp.common.saving.remember", lambda content: None)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_files_are_plain_data_and_tensors(assignment: str, tmp_path: Path) -> None:
    network = dict(net_arch=dict(pi=[8], vf=[8]), activation_fn=nn.ReLU, optimizer_class=th.optim.AdamW)
    kwargs = FIXED if assignment == "fixed" else {}
    model = make(
        assignment=assignment,
        assignment_kwargs=kwargs,
        policy_kwargs=network,
        learning_rate=LinearSchedule(1e-3, 1e-4, 1.0),
        clip_range_vf=0.1,
    ).learn(96)
    model.save(tmp_path / "model.zip")
    assert ":serialized:" not in json.dumps(data_of(tmp_path / "model.zip"))
    loaded = RepresentedPPO.load(tmp_path / "model.zip", env=vectorized(KnownAssignment, 3), device="cpu")
    assert loaded.policy_kwargs == model.policy_kwargs and loaded.policy_class is model.policy_class
    assert loaded.ep_info_buffer == model.ep_info_buffer and loaded.lr_schedule(0.5) == model.lr_schedule(0.5)
    # Everything but times is written as it was read
    loaded.save(tmp_path / "again.zip")
    first, again = data_of(tmp_path / "model.zip"), data_of(tmp_path / "again.zip")
    assert {name for name in first if first[name] != again.get(name)} <= {"_last_obs"}


FIXED = dict(representatives=[2, 2, 1, 0, 0, 1])


@pytest.mark.parametrize("space", ["Dict", "MultiDiscrete", "MultiBinary"])
def test_files_are_plain_data_for_every_space(space: str, tmp_path: Path) -> None:
    action = {
        "Dict": gym.spaces.Box(-1, 1, (2,)),
        "MultiDiscrete": gym.spaces.MultiDiscrete([2, 3]),
        "MultiBinary": gym.spaces.MultiBinary(3),
    }[space]
    seen = gym.spaces.Dict(a=gym.spaces.Box(-1, 1, (2,)), b=gym.spaces.Discrete(3))

    class Room(gym.Env):
        observation_space, action_space, n_agents = seen, action, 2

        def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
            return {"a": np.zeros(2, np.float32), "b": 1}, {}

        def step(self, action: Any) -> Any:
            return self.reset()[0], 0.0, True, False, {"reward_vector": np.zeros(2, np.float32)}

    model = RepresentedPPO("MultiInputPolicy", Room(), k=2, n_steps=8, batch_size=4, device="cpu").learn(16)
    model.save(tmp_path / "model.zip")
    assert ":serialized:" not in json.dumps(data_of(tmp_path / "model.zip"))
    loaded = RepresentedPPO.load(tmp_path / "model.zip", device="cpu")
    assert loaded.observation_space == seen and loaded.action_space == action


@pytest.mark.parametrize("attribute", sorted(vars(make()).keys() & {"policy_class", "n_steps", "gamma", "clip_range", "seed"}))
def test_code_in_a_file_runs_only_if_it_is_trusted(attribute: str, tmp_path: Path) -> None:
    saved(tmp_path / "model.zip")
    forge(tmp_path / "model.zip", attribute, pickled(Touch(tmp_path / "run")))
    if attribute in attributes.SCHEDULES:
        with pytest.warns(UserWarning, match=attribute):
            RepresentedPPO.load(tmp_path / "model.zip")
    else:
        with pytest.raises(ValueError, match=rf"model\.zip .*{attribute} is a pickled object.*trusted=True"):
            RepresentedPPO.load(tmp_path / "model.zip")
    assert not (tmp_path / "run").exists()
    with pytest.raises(Exception):  # noqa: B017 what comes out is no such attribute
        RepresentedPPO.load(tmp_path / "model.zip", trusted=True).learn(48)
    assert (tmp_path / "run").exists()


def test_code_beside_plain_data_does_not_run(tmp_path: Path) -> None:
    saved(tmp_path / "model.zip", policy_kwargs=dict(features_extractor_class=OwnExtractor))
    forged = {**data_of(tmp_path / "model.zip")["policy_kwargs"], **pickled(Touch(tmp_path / "run"))}
    forge(tmp_path / "model.zip", "policy_kwargs", forged)
    for trusted in (False, True):  # plain data come first
        RepresentedPPO.load(tmp_path / "model.zip", trusted=trusted)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("member", ["policy.pth", "assignment.pth", "pytorch_variables.pth", "more.pth"])
def test_code_among_weights_never_runs(member: str, tmp_path: Path) -> None:
    saved(tmp_path / "model.zip")
    file = io.BytesIO()
    th.save({"weight": Touch(tmp_path / "run")}, file)
    rewrite(tmp_path / "model.zip", **{member: file.getvalue()})
    for trusted in (False, True):
        with pytest.raises(Exception, match="Weights only load failed"):
            RepresentedPPO.load(tmp_path / "model.zip", trusted=trusted)
    assert not (tmp_path / "run").exists()


def test_a_file_imports_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lies_around.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'run')!r})\n")
    saved(tmp_path / "model.zip")
    for content in ("lies_around:Own", {":plain:": "class", "name": "lies_around:Own"}):
        forge(tmp_path / "model.zip", "assignment_method", content)
        with pytest.raises(ValueError, match=r"assignment_method is .*lies_around"):
            RepresentedPPO.load(tmp_path / "model.zip")
        assert not (tmp_path / "run").exists()


def test_a_file_names_no_class_but_parts_of_models(tmp_path: Path) -> None:
    saved(tmp_path / "model.zip")
    forge(tmp_path / "model.zip", "policy_class", {":plain:": "class", "name": "subprocess:Popen"})
    with pytest.raises(ValueError, match="policy_class is the class subprocess:Popen"):
        RepresentedPPO.load(tmp_path / "model.zip")


def test_classes_of_ones_own_load_where_they_are_imported(
    tmp_path: Path, elsewhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path / "model.zip", policy_kwargs=dict(features_extractor_class=OwnExtractor), assignment=OwnAssignment)
    loaded = RepresentedPPO.load(tmp_path / "model.zip")
    assert type(loaded.policy.features_extractor) is OwnExtractor and type(loaded.assignment) is OwnAssignment
    np.testing.assert_array_equal(loaded.assignment.representatives, model.assignment.representatives)
    monkeypatch.delitem(sys.modules, __name__)
    with pytest.raises(ValueError, match=f"policy_kwargs is the class {__name__}:OwnExtractor, which this program"):
        RepresentedPPO.load(tmp_path / "model.zip")
    with pytest.raises(ValueError, match="policy_kwargs is"):  # the assignment is given by the caller
        RepresentedPPO.load(tmp_path / "model.zip", assignment=OwnAssignment)
    replaced = dict(policy_kwargs=dict(features_extractor_class=OwnExtractor))
    found = RepresentedPPO.load(tmp_path / "model.zip", assignment=OwnAssignment, custom_objects=replaced)
    assert type(found.policy.features_extractor) is OwnExtractor


def test_a_program_loads_what_it_has_written_itself(tmp_path: Path) -> None:
    class Local(RandomAssignment):
        pass

    model = saved(tmp_path / "model.zip", learning_rate=lambda remaining: 1e-3 * remaining, assignment=Local)
    loaded = RepresentedPPO.load(tmp_path / "model.zip", env=vectorized(KnownAssignment, 3), device="cpu")
    assert loaded.lr_schedule(0.5) == model.lr_schedule(0.5) == 5e-4
    file = io.BytesIO()
    model.save(file)
    assert RepresentedPPO.load(file).lr_schedule(0.5) == 5e-4
    forge(tmp_path / "model.zip", "gamma", 0.9)  # one byte, and it is another file
    with pytest.raises(ValueError, match="trusted=True"):
        RepresentedPPO.load(tmp_path / "model.zip")


def test_a_model_without_its_schedules_acts_and_does_not_learn(tmp_path: Path, elsewhere: None) -> None:
    schedules = dict(learning_rate=lambda remaining: 1e-3 * remaining, clip_range=lambda _: 0.3)
    model = saved(tmp_path / "model.zip", **schedules)
    file, env = tmp_path / "model.zip", vectorized(KnownAssignment, 3)
    with pytest.warns(UserWarning, match=r"model\.zip: clip_range, learning_rate of the file.*trusted=True"):
        loaded = RepresentedPPO.load(file, env=env, device="cpu")
    for j in range(3):
        expected = model.predict(OBS, representative=j, deterministic=True)[0]
        np.testing.assert_array_equal(loaded.predict(OBS, representative=j, deterministic=True)[0], expected)
    for call in (lambda: loaded.learn(48), lambda: loaded.save(tmp_path / "other.zip")):
        with pytest.raises(ValueError, match="clip_range, learning_rate of the file"):
            call()
    assert not (tmp_path / "other.zip").exists()
    assert RepresentedPPO.load(file, env=env, device="cpu", trusted=True).learn(48).lr_schedule(0.5) == 5e-4
    given = RepresentedPPO.load(file, env=env, device="cpu", learning_rate=1e-4, clip_range=0.1)
    assert given.learn(48).lr_schedule(0.5) == 1e-4 and given.clip_range(0.5) == 0.1


def test_files_of_earlier_versions_need_trust(tmp_path: Path) -> None:
    model = make().learn(48)
    with (tmp_path / "old.zip").open("wb") as file:
        OnPolicyAlgorithm.save(model, file)  # pickles, as SB3 writes them
    with pytest.raises(ValueError, match=r"old\.zip holds more than plain data.*observation_space is a pickled object"):
        RepresentedPPO.load(tmp_path / "old.zip")
    loaded = RepresentedPPO.load(tmp_path / "old.zip", env=vectorized(KnownAssignment, 3), device="cpu", trusted=True)
    np.testing.assert_array_equal(loaded.assignment.representatives, model.assignment.representatives)
    loaded.learn(48, reset_num_timesteps=False)
