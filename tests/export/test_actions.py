"""Exported files act like the model: where sb3_rmdp cannot even be imported, and on observations far from all it knows."""

from __future__ import annotations

import base64
import json
import os
import pickle
import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecNormalize

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs import FactoredReward
from sb3_rmdp.export import export, load_exported
from sb3_rmdp.export.check import on_cpu
from tests.export.models import ARM, CASES, FLOATS, ONNX_CASES, untrained
from tests.probes import Drift, Spaces, time_limited, vectorized

#: Loads every zip in the folders, acts, saves the model and loads it again, in a process without sb3_rmdp
STRANGER = """
import importlib.abc, io, pickle, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "sb3_rmdp":
            raise ModuleNotFoundError("sb3_rmdp is not installed here")

sys.meta_path.insert(0, Blocker())
try:
    import sb3_rmdp
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("sb3_rmdp can be imported")

import pathlib, warnings
warnings.simplefilter("error", UserWarning)
import torch
from stable_baselines3 import PPO

root = pathlib.Path(sys.argv[1])
found = {}
for case in sorted(root.iterdir()):
    obs = pickle.loads((case / "obs.pkl").read_bytes())
    for file in sorted((case / "export").glob("*.zip")):
        model = PPO.load(file, device="cpu")
        copy = io.BytesIO()
        model.save(copy)
        copy.seek(0)
        again = PPO.load(copy, device="cpu")
        policy_file = io.BytesIO()
        model.policy.save(policy_file)
        actions = [loaded.predict(obs, deterministic=True)[0] for loaded in (model, again)]
        assert (actions[0] == actions[1]).all()
        found[case.name, file.stem] = actions[0]
(root / "found.pkl").write_bytes(pickle.dumps(found))
"""


def observations(model: RepresentedPPO, n: int = 200) -> Any:
    """
    :param model: a model
    :param n: how many
    :return: raw observations, a batch, not those of the check that export makes: up to a hundred standard deviations away
    """
    rng = np.random.RandomState(5)

    def draw(space: spaces.Space) -> Any:
        if isinstance(space, spaces.Dict):
            return {key: draw(part) for key, part in space.spaces.items()}
        if isinstance(space, spaces.Box) and space.dtype != np.uint8:
            scale = 10.0 ** rng.uniform(-1.0, 2.0, size=(n, *[1] * len(space.shape)))
            return (scale * rng.normal(size=(n, *space.shape))).astype(space.dtype)
        space.seed(3)
        return np.stack([space.sample() for _ in range(n)])

    return draw(model.observation_space)


def expected(model: RepresentedPPO, obs: Any, index: int) -> np.ndarray:
    """
    :param model: a model
    :param obs: raw observations
    :param index: of a representative
    :return: its likeliest actions
    """
    normalize = model.get_vec_normalize_env()
    return model.predict(obs if normalize is None else normalize.normalize_obs(obs), representative=index, deterministic=True)[
        0
    ]


def test_zip_files_where_there_is_no_sb3_rmdp(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "exported", tmp_path / "elsewhere"
    elsewhere.mkdir()
    models = {name: make() for name, make in CASES.items()}
    for name, model in models.items():
        export(model, root / name / "export", onnx=False)
        (root / name / "obs.pkl").write_bytes(pickle.dumps(observations(model)))
    command = [sys.executable, "-I", "-c", STRANGER, str(root)]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=elsewhere, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = pickle.loads((root / "found.pkl").read_bytes())
    assert len(found) == sum(model.k for model in models.values())
    for name, model in models.items():
        wanted = [expected(model, observations(model), j) for j in range(model.k)]
        for j in range(model.k):
            got = found[name, f"representative_{j}"]
            assert got.dtype == wanted[j].dtype, name
            np.testing.assert_allclose(got, wanted[j], rtol=0.0, atol=1e-5, err_msg=name)
        # or else anything would be equal
        assert all(len(np.unique(actions, axis=0)) > 1 for actions in wanted), name
        assert model.k == 1 or not np.allclose(wanted[0], wanted[1], atol=1e-2), name


@pytest.mark.parametrize("case", ONNX_CASES)
def test_onnx_files_with_nothing_but_onnxruntime(tmp_path: Path, case: str) -> None:
    model = CASES[case]()
    export(model, tmp_path / "export")
    obs = observations(model)
    named = {f"observation.{key}": value for key, value in obs.items()} if isinstance(obs, dict) else {"observation": obs}
    for j in range(model.k):
        session = onnxruntime.InferenceSession(str(tmp_path / "export" / f"representative_{j}.onnx"))
        assert {entry.name for entry in session.get_inputs()} == set(named)
        (actions,) = session.run(["action"], named)
        wanted = expected(model, obs, j)
        assert actions.dtype == wanted.dtype
        np.testing.assert_allclose(actions, wanted, rtol=0.0, atol=1e-5)
        (single,) = session.run(["action"], {name: value[:1] for name, value in named.items()})
        np.testing.assert_allclose(single, wanted[:1], rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_distributions_are_those_of_the_model(tmp_path: Path, case: str) -> None:
    model = CASES[case]()
    export(model, tmp_path / "export", onnx=False)
    raw = observations(model, 50)
    normalize = model.get_vec_normalize_env()
    obs = raw if normalize is None else normalize.normalize_obs(raw)
    for j in range(model.k):
        stock = PPO.load(tmp_path / "export" / f"representative_{j}.zip", device="cpu")
        with th.no_grad():
            theirs = stock.policy.get_distribution(obs_as_tensor(raw, th.device("cpu")))
            ours = model.policy.get_distribution(obs_as_tensor(obs, model.device), th.full((50,), j))
            actions = ours.get_actions()
            # In the middle of their range, where the inverse of tanh is exact
            actions = actions * 0.5 if model.policy.squash_output else actions
            th.testing.assert_close(theirs.log_prob(actions), ours.log_prob(actions), rtol=1e-4, atol=1e-4)
            if theirs.entropy() is not None:
                th.testing.assert_close(theirs.entropy(), ours.entropy(), rtol=1e-5, atol=1e-5)
        assert (stock.gamma, stock.num_timesteps) == (model.gamma, model.num_timesteps)


def values_of(path: Path, obs: np.ndarray) -> np.ndarray:
    """
    :param path: a stock PPO
    :param obs: observations
    :return: its values, (batch,)
    """
    with th.no_grad():
        return PPO.load(path, device="cpu").policy.predict_values(th.as_tensor(obs)).numpy()[:, 0]


@pytest.mark.parametrize("critic_rank", [None, 2])
def test_values_are_means_over_the_agents_served(tmp_path: Path, critic_rank: int | None) -> None:
    representatives = [2, 0, 0, 2, 0]
    fixed: dict[str, Any] = dict(assignment_kwargs=dict(representatives=representatives))
    model = untrained("MlpPolicy", FLOATS, spaces.Discrete(2), k=3, n_agents=5, critic_rank=critic_rank, **fixed)
    export(model, tmp_path / "export", onnx=False)
    obs = observations(model, 20)
    for j, served in enumerate(([1, 2, 4], [0, 1, 2, 3, 4], [0, 3])):  # nobody is served by 1: the mean over all
        with th.no_grad():
            outputs = model.policy.predict_values(th.as_tensor(obs), th.full((20,), j))
            basis = model.policy.critic_basis
            values = outputs if basis is None else outputs @ basis.weights.T
        found = values_of(tmp_path / "export" / f"representative_{j}.zip", obs)
        np.testing.assert_allclose(found, values[:, served].mean(dim=1), rtol=1e-4, atol=1e-4)


def test_values_of_factored_rewards_need_the_environment(tmp_path: Path) -> None:
    weights = np.random.RandomState(0).uniform(-2.0, 3.0, size=(7, 2)).astype(np.float32)

    def make() -> Any:
        return time_limited(FactoredReward(Drift(), lambda obs, action, *_: np.array([1.0, obs[0]], np.float32), weights))

    model = RepresentedPPO("MlpPolicy", vectorized(make, 2), k=2, n_steps=8, batch_size=8, device="cpu", seed=0).learn(16)
    model.save(tmp_path / "model.zip")
    manifest = export(model, tmp_path / "with", onnx=False)
    obs = observations(model, 10)
    units = model._balanced.units
    assert units is not None and manifest["values"] is not None and manifest["population"]["n_features"] == 2
    for j in range(2):
        with th.no_grad():
            features = model.policy.predict_values(th.as_tensor(obs), th.full((10,), j)) / units
        served = np.flatnonzero(model.assignment.representatives == j)
        wanted = (features.numpy() @ weights.T)[:, served if len(served) else slice(None)].mean(axis=1)
        np.testing.assert_allclose(values_of(tmp_path / "with" / f"representative_{j}.zip", obs), wanted, rtol=1e-4, atol=1e-5)
    manifest = export(tmp_path / "model", tmp_path / "without", onnx=False)
    assert manifest["values"] is None
    assert not values_of(tmp_path / "without" / "representative_0.zip", obs).any()
    loaded = load_exported(tmp_path / "without", "sb3").representative(1)
    np.testing.assert_allclose(loaded.predict(obs)[0], expected(model, obs, 1), rtol=0.0, atol=1e-5)


def test_no_compiled_code_travels(tmp_path: Path) -> None:
    export(CASES["box"](), tmp_path / "export", onnx=False)
    # It would tie files to one version of Python
    with zipfile.ZipFile(tmp_path / "export" / "representative_0.zip") as archive:
        data: dict[str, Any] = json.loads(archive.read("data"))
    pickled = [base64.b64decode(item[":serialized:"]) for item in data.values() if ":serialized:" in str(item)]
    names = {argument for content in pickled for _, argument, _ in pickletools.genops(content) if isinstance(argument, str)}
    assert "ActorCriticPolicy" not in names and any("class NormalizingActorCriticPolicy" in name for name in names)
    assert not names & {"_make_function", "CodeType", "_builtin_type", "_make_skeleton_class"}
    assert not any(name.split(".")[0] == "sb3_rmdp" for name in names)


class Corner(BaseFeaturesExtractor):
    """A features extractor of one's own: sums and differences of what it sees."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, 2 * observation_space.shape[0])

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.cat([observations + observations.flip(1), observations - observations.flip(1)], dim=1)


def test_64_bits_and_extractors_of_ones_own(tmp_path: Path) -> None:
    space = spaces.Box(-np.inf, np.inf, (4,), np.float64)
    model = untrained("MlpPolicy", space, ARM, policy_kwargs=dict(features_extractor_class=Corner))
    obs = 1000.0 + 1e-3 * np.random.RandomState(0).normal(size=(300, 4))
    assert model.policy.normalizer is not None
    moments = model.policy.normalizer.moments()
    assert moments is not None
    moments.mean.fill_(1000.0)
    moments.var.fill_(1e-6)
    wanted = model.predict(obs, representative=1, deterministic=True)[0]
    # In 32 bits there would not be much left of what varies
    assert np.abs(model.predict(obs.astype(np.float32), representative=1, deterministic=True)[0] - wanted).max() > 1e-3
    export(model, tmp_path / "export")
    for backend in ("onnx", "sb3"):
        found = load_exported(tmp_path / "export", backend).representative(1).predict(obs)[0]
        np.testing.assert_allclose(found, wanted, rtol=0.0, atol=1e-5)


def test_copies_on_the_cpu_act_alike() -> None:
    for case, make in CASES.items():
        model = make()
        obs = observations(model, 20)
        before = th.random.get_rng_state()
        copy = on_cpu(model.policy)
        assert th.equal(th.random.get_rng_state(), before) and copy is not model.policy
        normalize = model.get_vec_normalize_env()
        found = copy.predict(obs if normalize is None else normalize.normalize_obs(obs), representative=0, deterministic=True)[
            0
        ]
        np.testing.assert_array_equal(found, expected(model, obs, 0), err_msg=case)


def test_random_numbers_are_left_alone(tmp_path: Path) -> None:
    model = CASES["box"]()
    before, numpys = th.random.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]
    export(model, tmp_path / "export", onnx=False)
    assert th.equal(th.random.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], numpys)


def test_training_goes_on_from_a_zip_file(tmp_path: Path) -> None:
    export(CASES["discrete"](), tmp_path / "export", onnx=False)
    env = Spaces(FLOATS, spaces.Discrete(5))
    loaded = PPO.load(tmp_path / "export" / "representative_0.zip", env, device="cpu", n_steps=8, batch_size=8)
    before = {name: values.clone() for name, values in loaded.policy.state_dict().items()}
    loaded.learn(16)
    after = loaded.policy.state_dict()
    assert th.equal(after["normalizers.0.mean"], before["normalizers.0.mean"])
    assert not th.equal(after["action_net.weight"], before["action_net.weight"])


class TestVecNormalize:
    @pytest.fixture(scope="class")
    def saved(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[RepresentedPPO, Path]:
        """A model under VecNormalize, and a run folder with it and its statistics."""
        folder = tmp_path_factory.mktemp("run")
        model = CASES["vec_normalize"]()
        model.save(folder / "model.zip")
        (folder / "env").mkdir()
        (folder / "env" / "config.yml").write_text("!!python/object/apply:collections.OrderedDict\n- []\n")
        normalize = model.get_vec_normalize_env()
        assert normalize is not None
        normalize.save(str(folder / "env" / "vecnormalize.pkl"))
        return model, folder

    def check(self, model: RepresentedPPO, folder: Path) -> None:
        obs = observations(model)
        for j in range(model.k):
            found = load_exported(folder, "sb3").representative(j).predict(obs)[0]
            np.testing.assert_allclose(found, expected(model, obs, j), rtol=0.0, atol=1e-5)

    def test_statistics_are_found_in_a_run_folder(self, saved: tuple[RepresentedPPO, Path], tmp_path: Path) -> None:
        manifest = export(saved[1] / "model", tmp_path / "export", onnx=False)
        assert manifest["normalization"] == [{"by": "VecNormalize", "key": None, "clip": 2.0}]
        self.check(saved[0], tmp_path / "export")

    def test_statistics_are_named(self, saved: tuple[RepresentedPPO, Path], tmp_path: Path) -> None:
        model, folder = saved
        (tmp_path / "model.zip").write_bytes((folder / "model.zip").read_bytes())
        with pytest.raises(ValueError, match=r"statistics are not at hand.*--vec-normalize"):
            export(tmp_path / "model.zip", tmp_path / "export", onnx=False)
        for number, given in enumerate((folder / "env" / "vecnormalize.pkl", model.get_vec_normalize_env())):
            export(tmp_path / "model.zip", tmp_path / f"export{number}", onnx=False, vec_normalize=given)
            self.check(model, tmp_path / f"export{number}")

    def test_statistics_that_do_not_fit(self, saved: tuple[RepresentedPPO, Path], tmp_path: Path) -> None:
        model, folder = saved
        other = untrained("MlpPolicy", spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2), under_vec_normalize=True)
        raw = CASES["raw"]()
        raw.trained_under_vec_normalize = False
        assert raw.env is not None
        not_of_observations = VecNormalize(raw.env, norm_obs=False, norm_reward=False)
        for given, message, trained in (
            (other.get_vec_normalize_env(), r"shape \(2,\), the model takes \(3,\)", model),
            (folder / "model.zip", "holds no statistics", model),
            (not_of_observations, "normalises no observations", model),
            (folder / "env" / "vecnormalize.pkl", "trained without VecNormalize", raw),
        ):
            with pytest.raises(ValueError, match=message):
                export(trained, tmp_path / "export", onnx=False, vec_normalize=given)
        with pytest.raises(FileNotFoundError, match="there is no file"):
            export(model, tmp_path / "export", onnx=False, vec_normalize=tmp_path / "none.pkl")
        assert not (tmp_path / "export").exists()
