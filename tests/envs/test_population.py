import numpy as np
import pytest

from sb3_rmdp.envs import uniform_population


def test_first_values_of_seed_0():
    # Pinned: trained models and published tables speak of these agents.
    expected = [0.5488135039273248, 0.7151893663724195, 0.6027633760716439, 0.5448831829968969, 0.4236547993389047]
    assert uniform_population(5, 1.0, seed=0).tolist() == expected


@pytest.mark.parametrize("seed", [1, 7, 2**32 - 1])
def test_equals_numpys_frozen_generator(seed):
    drawn = uniform_population(1000, 2.0, seed)
    np.testing.assert_array_equal(drawn, np.random.RandomState(seed).uniform(0.0, 2.0, 1000))
    assert drawn.dtype == np.float64


def test_range_and_spread():
    drawn = uniform_population(10_000, 4.0, seed=3)
    assert drawn.min() >= 0
    assert drawn.max() < 4.0
    # Four standard errors of the mean of U[0, 4].
    assert abs(drawn.mean() - 2.0) < 4 * 4 / np.sqrt(12 * 10_000)


def test_smaller_population_is_a_prefix():
    np.testing.assert_array_equal(uniform_population(10, 2.5, 1), uniform_population(100, 2.5, 1)[:10])


def test_seed_matters_and_global_state_does_not():
    np.random.seed(5)
    first = uniform_population(10, 1.0, 0)
    np.random.seed(6)
    np.testing.assert_array_equal(first, uniform_population(10, 1.0, 0))
    assert not np.array_equal(first, uniform_population(10, 1.0, 1))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_agents": 0}, "n_agents=0 does not do; give an integer of at least 1"),
        ({"n_agents": 2.0}, "n_agents=2.0 does not do"),
        ({"seed": -1}, "seed=-1 does not do; give an integer of at least 0"),
        ({"seed": 2**32}, "seed=4294967296 does not do; give an integer below"),
        ({"seed": None}, "seed=None does not do"),
        ({"high": 0.0}, "high=0.0 does not do; give a positive finite number"),
        ({"high": float("inf")}, "high=inf does not do"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        uniform_population(**{"n_agents": 3, "high": 1.0, "seed": 0, **kwargs})
