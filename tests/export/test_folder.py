"""The folder of an export: whole or not there at all, and refused if a byte of it was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.policies import RepresentedActorCriticPolicy, RepresentedLinear
from sb3_rmdp.common.spaces import space_from_json, space_to_json
from sb3_rmdp.export import export, load_exported, verify, writing
from sb3_rmdp.export.check import Reference, random_observations
from sb3_rmdp.export.manifest import sha256, to_text
from sb3_rmdp.export.normalization import stages_of
from sb3_rmdp.export.stock import StockPPO
from tests.export.models import CASES, FLOATS, IMAGE, MANY, untrained
from tests.probes import TwoGroups


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[RepresentedPPO, Path]:
    """A model, k = 3, n = 4, nobody served by representative 1, and its export with ONNX."""
    th.set_num_threads(1)
    folder = tmp_path_factory.mktemp("exported") / "export"
    model = CASES["box"]()
    export(model, folder)
    return model, folder


@pytest.fixture
def copy(exported: tuple[RepresentedPPO, Path], tmp_path: Path) -> Path:
    """A copy of the export, to be tampered with."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in exported[1].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    verify(folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """
    :param folder: any folder
    :return: content of everything in it
    """
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def head_of(model: RepresentedPPO) -> RepresentedLinear:
    """
    :param model: a model
    :return: last layers of its actors
    """
    head = model.policy.action_net
    assert isinstance(head, RepresentedLinear)
    return head


def test_manifest_tells_who_is_served_by_what(exported: tuple[RepresentedPPO, Path]) -> None:
    model, folder = exported
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [row["agents"] for row in manifest["representatives"]] == [[1, 2, 3], [], [0]]
    assert [row["n_agents"] for row in manifest["representatives"]] == [3, 0, 1]
    assert manifest["population"] == {"n_agents": 4, "population_id": None, "n_features": None}
    assert manifest["model"]["k"] == 3 and manifest["model"]["sha256"] is None
    assert manifest["assignment"] == {"method": "fixed", "file": None}
    assert manifest["normalization"] == [{"by": "policy", "key": None, "clip": 10.0}]
    assert space_from_json(manifest["observation_space"]) == model.observation_space
    assert space_from_json(manifest["action_space"]) == model.action_space
    listed = [entry for row in manifest["representatives"] for entry in row["files"].values()]
    assert {entry["name"] for entry in listed} | {"manifest.json"} == set(files(folder))
    for entry in listed:
        content = (folder / entry["name"]).read_bytes()
        assert (entry["sha256"], entry["bytes"]) == (sha256(content), len(content))
    assert all(0.0 <= value <= 1e-5 for row in manifest["representatives"] for value in row["largest_difference"].values())


@pytest.mark.parametrize("space", [FLOATS, IMAGE, MANY, spaces.Discrete(3, start=-1), spaces.MultiBinary([2, 2])])
def test_spaces_come_back(space: spaces.Space) -> None:
    assert space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False))) == space


def test_spaces_of_different_bounds_come_back() -> None:
    space = spaces.Box(np.array([[-np.inf, 0.1]]), np.array([[2.0, np.inf]]), dtype=np.float64)
    assert space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False))) == space
    with pytest.raises(ValueError, match="no space of SB3's PPO"):
        space_to_json(spaces.Text(3))
    with pytest.raises(ValueError, match="describes no space"):
        space_from_json({"type": "Text"})


def test_changed_bytes_of_the_manifest_are_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    content = path.read_bytes()
    for place in [*range(0, len(content), 4), len(content) - 1]:
        changed = bytearray(content)
        changed[place] ^= 0x01 if place % 8 else 0x20
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"manifest\.json"):
            verify(copy)
    for other in (content + b"\n", content[:-1], b"", b"[]", b"{}", content.replace(b"  ", b" ", 1)):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=r"manifest\.json"):
            load_exported(copy)
    path.write_bytes(content)
    verify(copy)


@pytest.mark.parametrize("name", ["representative_0.zip", "representative_2.onnx"])
def test_changed_missing_and_added_files_are_refused(copy: Path, name: str) -> None:
    path = copy / name
    content = path.read_bytes()
    for place in (0, 1, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 0x01
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=f"{name} was changed"):
            load_exported(copy)
    path.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match=f"{name} was changed"):
        verify(copy)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        verify(copy)
    path.write_bytes(content)
    (copy / "representative_3.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"representative_3\.zip was added"):
        verify(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"manifest\.json is missing"):
        verify(copy)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        verify(copy / "none")


def test_a_manifest_that_was_written_anew_is_known_by_its_hash(copy: Path) -> None:
    digest = verify(copy)["sha256"]
    assert verify(copy, digest) == verify(copy, digest[:16].upper())
    manifest = json.loads((copy / "manifest.json").read_text())
    for index, agents in ((0, [0]), (2, [1, 2, 3])):
        manifest["representatives"][index].update(agents=agents, n_agents=len(agents))
    (copy / "manifest.json").write_text(to_text(manifest))
    assert load_exported(copy).representative_of(0) == 0  # who can do this can do anything
    with pytest.raises(ValueError, match="written anew"):
        load_exported(copy, digest=digest)
    for few in (digest[:15], "", "5" * 65, "g" * 16, digest[:16] + " "):
        with pytest.raises(ValueError, match="at least the first 16"):
            verify(copy, few)
    manifest["schema"] = 2
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="schema 2"):
        verify(copy)


def test_a_file_that_is_changed_after_loading_is_refused_when_it_is_opened(copy: Path) -> None:
    loaded = load_exported(copy)
    loaded.representative(0)
    for name in ("representative_0.onnx", "representative_1.onnx"):
        (copy / name).write_bytes((copy / "representative_2.onnx").read_bytes())
    loaded.representative(0)
    with pytest.raises(ValueError, match=r"representative_1\.onnx was changed"):
        loaded.representative(1)


@pytest.mark.parametrize("backend", ["onnx", "sb3"])
def test_loaded_exports_act(exported: tuple[RepresentedPPO, Path], backend: str) -> None:
    model, folder = exported
    loaded = load_exported(folder, backend)
    obs = random_observations(FLOATS, 5)
    assert (loaded.k, loaded.n_agents) == (3, 4)
    for agent in range(4):
        j = model.representative_of(agent)
        assert loaded.representative_of(agent) == j and agent in loaded.representative(j).agents
        for some in (obs, obs[0], obs[:1]):
            wanted = model.predict(some, representative=j, deterministic=True)[0]
            found, state = loaded.predict(some, agent=agent)
            assert found.shape == wanted.shape and state is None
            np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-5)
    assert not len(loaded.representative(1).agents)
    with pytest.raises(ValueError, match="agent=4: there are 4 agents"):
        loaded.predict(obs, agent=4)
    with pytest.raises(ValueError, match="representative 3"):
        loaded.representative(3)
    with pytest.raises(ValueError, match="shape"):
        loaded.predict(obs[:, :2], agent=0)
    if backend == "onnx":
        with pytest.raises(ValueError, match='backend="sb3"'):
            loaded.predict(obs, agent=0, deterministic=False)
    else:
        assert not np.allclose(loaded.predict(obs, 0, deterministic=False)[0], loaded.predict(obs, 0, deterministic=False)[0])


@pytest.mark.parametrize("backend", ["onnx", "sb3"])
def test_loaded_exports_refuse_observations_that_are_not_finite(exported: tuple[RepresentedPPO, Path], backend: str) -> None:
    model, folder = exported
    obs = np.zeros(model.observation_space.shape or (), np.float32)
    obs.flat[1] = np.nan
    with pytest.raises(ValueError, match=r"observation\[1\] is nan"):
        load_exported(folder, backend).predict(obs, agent=0)


def test_dicts_and_images_as_the_environment_gives_them(tmp_path: Path) -> None:
    model = CASES["multi_input"]()
    export(model, tmp_path / "export")
    MANY.seed(0)
    obs = [MANY.sample() for _ in range(2)]
    batch = {key: np.stack([each[key] for each in obs]) for key in obs[0]}
    wanted = model.predict(batch, representative=1, deterministic=True)[0]
    for backend in ("onnx", "sb3"):
        acting = load_exported(tmp_path / "export", backend).representative(1)
        np.testing.assert_allclose(acting.predict(batch)[0], wanted, rtol=0.0, atol=1e-5)
        np.testing.assert_allclose(acting.predict(obs[1])[0], wanted[1], rtol=0.0, atol=1e-5)
    onnx = load_exported(tmp_path / "export").representative(1)
    with pytest.raises(ValueError, match="has no 'gear'"):
        onnx.predict({key: value for key, value in batch.items() if key != "gear"})
    with pytest.raises(ValueError, match="is no observation of Dict"):
        onnx.predict(batch["camera"])


def test_evaluate_policy_takes_exported_representatives(tmp_path: Path) -> None:
    model = untrained("MlpPolicy", TwoGroups.observation_space, TwoGroups.action_space, n_agents=6)
    export(model, tmp_path / "export", onnx=False)
    loaded = load_exported(tmp_path / "export", "sb3")
    env = Monitor(TwoGroups())
    for j in range(2):
        wanted = evaluate_policy(model.representative(j), env, n_eval_episodes=2)
        assert evaluate_policy(loaded.representative(j), env, n_eval_episodes=2) == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(ValueError, match="has files for sb3"):
        load_exported(tmp_path / "export", "onnx")


def test_assignments_of_many_agents_have_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LISTED", 3)
    manifest = export(CASES["box"](), tmp_path / "export", onnx=False)
    assert all(row["agents"] is None for row in manifest["representatives"])
    assert load_exported(tmp_path / "export", "sb3").assignment.tolist() == [2, 0, 0, 0]
    path = tmp_path / "export" / manifest["assignment"]["file"]["name"]
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match=r"assignment\.npy was changed"):
        load_exported(tmp_path / "export", "sb3")


def test_nothing_appears_unless_everything_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CASES["raw"]()
    target = tmp_path / "new" / "export"
    tried: list[int] = []

    def interrupted(done: int, of: int) -> None:
        tried.append(done)
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(model, target, onnx=False, on_written=interrupted)
    assert tried == [0, 1] and not files(target.parent)

    export(model, target, onnx=False)
    before = files(target)
    with pytest.raises(ValueError, match=r"holds an export already.*--force"):
        export(model, target, onnx=False)
    with pytest.raises(KeyboardInterrupt):
        export(model, target, onnx=False, force=True, on_written=interrupted)
    assert files(target) == before and [path.name for path in target.parent.iterdir()] == ["export"]

    other = CASES["box"]()
    export(other, target, onnx=False, force=True)
    assert load_exported(target, "sb3").k == 3 and [path.name for path in target.parent.iterdir()] == ["export"]
    (target / "manifest.json").write_text("no manifest any more")
    export(model, target, onnx=False, force=True)
    assert load_exported(target, "sb3").k == 2


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    model = CASES["raw"]()
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(ValueError, match=r"holds thesis\.tex, which is of no export"):
        export(model, tmp_path, onnx=False, force=True)
    with pytest.raises(ValueError, match="is no folder"):
        export(model, tmp_path / "thesis.tex", onnx=False, force=True)
    (tmp_path / "empty").mkdir()
    export(model, tmp_path / "empty", onnx=False)
    assert load_exported(tmp_path / "empty", "sb3").k == 2
    assert sorted(files_and_folders := [path.name for path in tmp_path.iterdir()]) == [
        "empty",
        "thesis.tex",
    ], files_and_folders


@pytest.mark.parametrize("case", ["raw", "discrete", "multi_binary"])
def test_an_export_that_acts_otherwise_is_not_published(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become = StockPPO.become

    def become_another(self: StockPPO, index: int) -> None:
        become(self, 0)

    monkeypatch.setattr(StockPPO, "become", become_another)
    with pytest.raises(ValueError, match=r"representative_1\.zip would not act like the model.*Nothing was written"):
        export(CASES[case](), tmp_path / "export", onnx=False)
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_no_number_is_not_published(tmp_path: Path) -> None:
    model = CASES["raw"]()
    with th.no_grad():
        head_of(model).bias[1] = th.nan
    with pytest.raises(ValueError, match=r"action_net\.bias of the model is not finite"):
        export(model, tmp_path / "export", onnx=False)
    assert not list(tmp_path.iterdir())


def test_differences_are_measured(tmp_path: Path) -> None:
    model = untrained(
        "MlpPolicy", FLOATS, spaces.Discrete(2), normalize_observations=False, policy_kwargs=dict(net_arch=dict(pi=[], vf=[4]))
    )
    obs = random_observations(FLOATS, 8)
    with th.no_grad():
        head_of(model).weight.zero_()
        head_of(model).bias.copy_(th.tensor([[1.0, 1.0 - 1e-6], [0.0, 3.0]]))
    reference = Reference(model.policy, None, obs)
    assert reference.difference(0, np.zeros(8, dtype=np.int64)) == 0.0
    assert 0.0 < reference.difference(0, np.ones(8, dtype=np.int64)) < 1e-5  # a tie but for the last digits
    assert reference.difference(1, np.zeros(8, dtype=np.int64)) == pytest.approx(3.0, abs=1e-5)
    with pytest.raises(ValueError, match="exported actions are float32"):
        reference.difference(1, np.zeros(8, dtype=np.float32))

    for case, width in (("raw", 1.0), ("gsde_squashed", 5.0)):
        model = CASES[case]()
        if case == "gsde_squashed":
            model.action_space = model.policy.action_space = spaces.Box(-5.0, 5.0, (2,))
        reference = Reference(model.policy, None, obs)
        shifted = reference.actions(0)
        shifted[3, 1] += 0.5
        unit = max(width, abs(reference.actions(0)[3, 1]))
        assert reference.difference(0, shifted) == pytest.approx(0.5 / unit, abs=1e-5)


def test_checks_look_where_observations_are_clipped() -> None:
    model = CASES["multi_input_twice_normalized"]()
    normalize = model.get_vec_normalize_env()
    stages = stages_of(model.policy, normalize)
    assert [(stage.by, stage.key) for stage in stages] == [
        ("VecNormalize", "linear"),
        ("policy", "action"),
        ("policy", "linear"),
    ]
    space = model.observation_space
    assert normalize is not None and isinstance(space, spaces.Dict)
    obs = random_observations(space, 256, stages)
    clipped = np.abs(normalize.normalize_obs(obs)["linear"]) == 2.0
    assert 0.1 < clipped.mean() < 0.9
    assert set(obs["gear"]) == set(range(4)) and obs["camera"].min() == 0 and obs["camera"].max() == 255
    assert all(obs[key].dtype == part.dtype for key, part in space.spaces.items())


class Shy(RepresentedActorCriticPolicy):
    """Acts by half."""

    def act(self, *args: Any, **kwargs: Any) -> th.Tensor:
        return 0.5 * super().act(*args, **kwargs)


def test_policies_of_ones_own_are_refused(tmp_path: Path) -> None:
    model = untrained(Shy, FLOATS, spaces.Box(-1.0, 1.0, (1,)))
    with pytest.raises(ValueError, match=r"tests\.export\.test_folder\.Shy cannot be exported"):
        export(model, tmp_path / "export", onnx=False)
    assert not list(tmp_path.iterdir())
