"""What comes to a policy is looked at before it is used: a sentence for what is wrong, and what SB3 accepts is accepted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.common.policies import ConditionedMlpExtractor
from sb3_rmdp.represented_ppo import MlpPolicy
from tests.probes import Drift, KnownAssignment

SMALL: dict[str, Any] = dict(n_steps=16, batch_size=8, n_epochs=1, seed=0, device="cpu")
ZEROS = np.zeros(2, dtype=np.float32)


class Dicts(Drift):
    observation_space = spaces.Dict({"x": Drift.observation_space, "n": spaces.Discrete(3)})

    def observe(self) -> Any:
        return {"x": super().observe(), "n": self.time % 3}


@pytest.fixture(scope="module")
def model() -> RepresentedPPO:
    return RepresentedPPO("MlpPolicy", Drift(), k=2, **SMALL)


@pytest.fixture(scope="module")
def dicts() -> RepresentedPPO:
    return RepresentedPPO("MultiInputPolicy", Dicts(), k=2, **SMALL)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ((ZEROS, {}), r"You have passed a tuple to the predict\(\) function.*env.reset\(\)"),
        (np.zeros(3), r"Unexpected observation shape \(3,\).*please use \(2,\) or \(n_env, 2\)"),
        (np.zeros((2, 2, 2)), "Unexpected observation shape"),
        (None, "observation=None is no array of numbers"),
        ("ab", "observation='ab' is no array of numbers"),
        (["a", "b"], "is no array of numbers"),
        ([[1.0], [1.0, 2.0]], "is no array of numbers"),
        (np.zeros(2, dtype=complex), "is no array of numbers"),
        ({"x": ZEROS}, "is a dict, but the observation space is Box"),
    ],
)
def test_observations(model: RepresentedPPO, observation: Any, message: str) -> None:
    for predict in (model.predict, model.policy.predict, model.representative(1).predict):
        with pytest.raises(ValueError, match=message):
            predict(observation)


@pytest.mark.parametrize(
    "observation", [[0.0, 1.0], [0, 1], np.array([0.0, 1.0]), np.array([0, 1]), np.array([False, True]), (0.0, 1.0)]
)
def test_observations_that_are_numbers_are_the_same(model: RepresentedPPO, observation: Any) -> None:
    expected = model.predict(np.array([0.0, 1.0], dtype=np.float32), deterministic=True)[0]
    np.testing.assert_allclose(model.predict(observation, deterministic=True)[0], expected)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"x": ZEROS}, r"has the keys \['x'\]: pass those of the observation space, \['n', 'x'\]"),
        ({"x": ZEROS, "n": 1, "q": 1}, "has the keys"),
        ({"x": ZEROS, "n": 3}, r"observation\['n'\]=3 is not in Discrete\(3\): pass integers from 0 to 2"),
        ({"x": ZEROS, "n": -1}, "is not in Discrete"),
        ({"x": ZEROS, "n": 1.5}, "is not in Discrete"),
        ({"x": None, "n": 1}, r"observation\['x'\]=None is no array"),
        ({"x": np.zeros(3), "n": 1}, "Unexpected observation shape"),
        ({"x": np.zeros((2, 2)), "n": np.array([1])}, "batches of different sizes, {'n': 1, 'x': 2}"),
        (ZEROS, r"is no dict: pass one with the keys \['n', 'x'\]"),
        (({"x": ZEROS, "n": 1}, {}), "You have passed a tuple"),
    ],
)
def test_observations_of_several_parts(dicts: RepresentedPPO, observation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dicts.predict(observation)


@pytest.mark.parametrize(
    "representative", [-1, 2, 0.0, True, "a", [0, 1], [True, False, True], [0.0, 0.0, 0.0], [None] * 3, [[0, 1, 0]] * 2]
)
def test_representatives(model: RepresentedPPO, representative: Any) -> None:
    with pytest.raises(ValueError, match="representative="):
        model.predict(np.zeros((3, 2)), representative=representative)
    with pytest.raises(ValueError, match=r"representative .*: with k=2"):
        model.representative(representative)
    with pytest.raises(ValueError, match="agent="):
        model.representative_of([representative])  # type: ignore[arg-type]


def test_representatives_of_any_integer_type(model: RepresentedPPO) -> None:
    for one in (np.int8(1), np.int64(1), np.array(1), th.tensor(1)):
        assert model.representative(one).index == 1 and model.representative_of(one) in (0, 1)  # type: ignore[arg-type]
        assert model.predict(np.zeros((3, 2)), representative=one)[1][0].tolist() == [1, 1, 1]  # type: ignore[index, arg-type]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(state=(np.zeros(2, dtype=int),)), "state=.* is not of 3 observations"),
        (dict(state=np.zeros(3, dtype=int)), "state=.* is not of 3 observations"),
        (dict(state=(np.zeros(3),)), "state="),
        (dict(state=(np.array([0, 2, 0]),)), "state="),
        (dict(state=(np.zeros(3, dtype=int),), episode_start=np.zeros(2, dtype=bool)), "episode_start=.*3 observations"),
        (dict(state=(np.zeros(3, dtype=int),), episode_start="yes"), "episode_start='yes'"),
    ],
)
def test_states(model: RepresentedPPO, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.predict(np.zeros((3, 2)), **kwargs)


@pytest.mark.parametrize("method", ["get_distribution", "predict_values", "act", "forward"])
@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ((ZEROS, {}), r"obs=.*: pass a tensor \(batch, 2\)"),
        (np.zeros((4, 2)), r"obs=array of shape \(4, 2\).*obs_to_tensor"),
        (th.zeros(4, 3), r"obs=tensor of shape \(4, 3\)"),
        (th.zeros(2), r"obs=tensor of shape \(2,\)"),
        (None, "obs=None"),
        ({"x": th.zeros(4, 2)}, "obs="),
        (th.zeros(3, 2), "obs has 3 rows, which are not k=2 blocks of equal length: pass representatives"),
    ],
)
def test_tensors(model: RepresentedPPO, method: str, obs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(model.policy, method)(obs)


@pytest.mark.parametrize(
    "representatives",
    [th.zeros(2, dtype=th.int64), th.zeros(3), th.zeros(3, dtype=th.bool), th.zeros(3, dtype=th.uint8), th.tensor([0, -1, 0])]
    + [th.tensor([0, 2, 0]), [0, 1, 0], 1],
)
def test_representatives_of_tensors(model: RepresentedPPO, representatives: Any) -> None:
    policy, obs = model.policy, th.zeros(3, 2)
    for call in (policy.get_distribution, policy.predict_values, policy.act):
        with pytest.raises(ValueError, match="representatives="):
            call(obs, representatives)
    with pytest.raises(ValueError, match="representatives="):
        policy.evaluate_actions(obs, th.zeros(3, 2), representatives)


@pytest.mark.parametrize("actions", [th.zeros(2, 2), th.zeros(4), th.zeros(4, 3), np.zeros((4, 2)), [0.0], None])
def test_actions(model: RepresentedPPO, actions: Any) -> None:
    with pytest.raises(ValueError, match="actions="):
        model.policy.evaluate_actions(th.zeros(4, 2), actions)


def test_a_column_of_discrete_actions_is_not_multiplied_out() -> None:
    policy = RepresentedPPO("MlpPolicy", KnownAssignment(), k=2, **SMALL).policy
    assert policy.evaluate_actions(th.zeros(4, 2), th.zeros(4))[1].shape == (4,)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="actions="):
        policy.evaluate_actions(th.zeros(4, 2), th.zeros(4, 1))


@pytest.mark.parametrize(
    ("episodes", "confidence", "message"),
    [
        (None, 0.95, "episodes=None"),
        (5, 0.95, "episodes=5"),
        ("e.npz", "high", "confidence='high'"),
        ("e.npz", 2.0, "confidence=2.0"),
    ],
)
def test_assign(model: RepresentedPPO, episodes: Any, confidence: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.assign([[1.0, 2.0, 3.0]], episodes, confidence)


class OwnNetworks(nn.Module):
    """As in SB3's documentation: its critic knows nothing of representatives."""

    def __init__(self, n: int):
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = 8, 6
        self.policy_net = nn.Sequential(nn.Linear(n, 8), nn.ReLU())
        self.value_net = nn.Sequential(nn.Linear(n, 6), nn.ReLU())

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return self.policy_net(features)

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return self.value_net(features)


class Telling(OwnNetworks):
    """Its critic tells representatives apart in its own way."""

    def __init__(self, n: int):
        super().__init__(n)
        self.own = nn.Embedding(2, n)

    def forward_critic(self, features: th.Tensor, representatives: th.Tensor | None = None) -> th.Tensor:  # type: ignore[override]
        if representatives is None:
            representatives = th.arange(2).repeat_interleave(len(features) // 2)
        return self.value_net(features + self.own(representatives))


class Bare(nn.Module):
    latent_dim_pi = latent_dim_vf = 2

    def __init__(self, n: int):
        super().__init__()


def policy_of(networks: Any) -> type[MlpPolicy]:
    class Own(MlpPolicy):
        def _build_mlp_extractor(self) -> None:
            self.mlp_extractor = networks(self.features_dim)

    return Own


def test_networks_of_ones_own() -> None:
    with pytest.raises(ValueError, match=r"OwnNetworks has a forward_critic without representatives.*ConditionedMlpExtractor"):
        RepresentedPPO(policy_of(OwnNetworks), Drift(), k=2, **SMALL)
    with pytest.raises(ValueError, match="Bare has no policy_net"):
        RepresentedPPO(policy_of(Bare), Drift(), k=2, **SMALL)
    for k, networks in ((1, OwnNetworks), (2, Telling), (1, Telling)):
        model = RepresentedPPO(policy_of(networks), Drift(), k=k, **SMALL)
        before = {name: parameter.detach().clone() for name, parameter in model.policy.named_parameters()}
        model.learn(64)
        model.predict(np.zeros((3, 2)))
        still = [name for name, parameter in model.policy.named_parameters() if th.equal(parameter, before[name])]
        assert still == []


def test_extractors_of_ones_own() -> None:
    class Features(BaseFeaturesExtractor):
        def __init__(self, observation_space: spaces.Space, width: int = 3):
            super().__init__(observation_space, width)
            self.layer = nn.Linear(2, width)

        def forward(self, observations: th.Tensor) -> th.Tensor:
            return self.layer(observations)

    kwargs = dict(features_extractor_class=Features, features_extractor_kwargs=dict(width=5))
    model = RepresentedPPO("MlpPolicy", Drift(), k=2, policy_kwargs=kwargs, **SMALL).learn(32)
    assert model.policy.features_dim == 5
    with pytest.raises(ValueError, match=r"features_extractor_kwargs has \['widht'\].*did you mean 'width'"):
        kwargs = dict(features_extractor_class=Features, features_extractor_kwargs=dict(widht=5))
        RepresentedPPO("MlpPolicy", Drift(), k=2, policy_kwargs=kwargs, **SMALL)


def test_networks_without_hidden_layers() -> None:
    model = RepresentedPPO("MlpPolicy", Drift(), k=2, policy_kwargs=dict(net_arch=dict(pi=[], vf=[8])), **SMALL).learn(32)
    assert model.predict(ZEROS)[0].shape == (2,)
    RepresentedPPO("MlpPolicy", Drift(), k=1, policy_kwargs=dict(net_arch=[]), **SMALL).learn(32)
    assert isinstance(model.policy.mlp_extractor, ConditionedMlpExtractor)
