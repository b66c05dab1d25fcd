"""Running normalisation of observations."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_rmdp.common.normalization import ObservationNormalizer

OBS = spaces.Box(-np.inf, np.inf, (3,), np.float32)


def test_moments_are_those_of_all_samples_together() -> None:
    rng = np.random.default_rng(0)
    rollouts = [rng.normal(100.0, [1.0, 2.0, 0.01], size=(size, 2, 3)).astype(np.float32) for size in (5, 50, 7)]
    normalizer = ObservationNormalizer(OBS)
    for rollout in rollouts:
        normalizer.update(rollout)
    together = np.concatenate([rollout.reshape(-1, 3) for rollout in rollouts]).astype(np.float64)
    moments = normalizer.moments()
    assert moments is not None
    np.testing.assert_allclose(moments.mean.numpy(), together.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.var.numpy(), together.var(axis=0), rtol=1e-9)
    normalized = normalizer(th.as_tensor(rollouts[1])).reshape(-1, 3)
    assert normalized.dtype == th.float32
    np.testing.assert_allclose(normalized.mean(dim=0).numpy(), 0.0, atol=0.5)
    np.testing.assert_allclose(normalized.std(dim=0).numpy(), 1.0, atol=0.5)


def test_before_the_first_rollout_nothing_changes_but_clipping() -> None:
    normalizer = ObservationNormalizer(OBS, clip=2.0)
    th.testing.assert_close(normalizer(th.tensor([[0.5, -3.0, 9.0]])), th.tensor([[0.5, -2.0, 2.0]]))


def test_a_constant_observation_is_harmless() -> None:
    normalizer = ObservationNormalizer(OBS)
    normalizer.update(np.full((10, 3), 7.0, dtype=np.float32))
    np.testing.assert_array_equal(normalizer(th.full((1, 3), 7.0)).numpy(), 0.0)


@pytest.mark.parametrize(
    "space", [spaces.Discrete(4), spaces.Box(0, 255, (3, 36, 36), np.uint8), spaces.MultiBinary(3)], ids=str
)
def test_discrete_observations_and_images_pass(space: spaces.Space) -> None:
    normalizer = ObservationNormalizer(space)
    obs = th.as_tensor(np.stack([space.sample()]))
    normalizer.update(obs.numpy())
    assert normalizer(obs) is obs
    assert not list(normalizer.buffers())


def test_dict_observations_key_by_key() -> None:
    space = spaces.Dict({"x": OBS, "image": spaces.Box(0, 255, (3, 36, 36), np.uint8)})
    normalizer = ObservationNormalizer(space)
    x = np.random.default_rng(0).normal(5.0, 2.0, (100, 3)).astype(np.float32)
    image = np.zeros((100, 3, 36, 36), dtype=np.uint8)
    normalizer.update({"x": x, "image": image})
    out = normalizer({"x": th.as_tensor(x), "image": th.as_tensor(image)})
    assert isinstance(out, dict)
    np.testing.assert_allclose(out["x"].mean(dim=0).numpy(), 0.0, atol=1e-4)
    assert (out["image"] == 0).all() and out["image"].dtype == th.uint8


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e200], ids=str)
def test_moments_stay_where_a_sample_is_not_finite_or_its_square(wrong: float) -> None:
    space = spaces.Dict({key: spaces.Box(-np.inf, np.inf, (2,), np.float64) for key in ("a", "b")})
    normalizer = ObservationNormalizer(space)
    samples = {key: np.random.default_rng(0).normal(size=(10, 2)) for key in ("a", "b")}
    normalizer.update(samples)
    before = {name: value.clone() for name, value in normalizer.state_dict().items()}
    broken = samples["b"].copy()
    broken[3, 1] = wrong
    with pytest.raises(ValueError, match="running moments must be finite"):
        normalizer.update({"a": samples["a"], "b": broken})
    assert all(th.equal(value, before[name]) for name, value in normalizer.state_dict().items())
