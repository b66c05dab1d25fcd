import numpy as np
import pytest

from sb3_rmdp.envs import HopperVelocityEnv, ResourceGatheringEnv, WelfareBounded, contract, fingerprint, scalar_reward
from sb3_rmdp.envs.contract import integer


def test_scalar_reward_is_the_mean_in_double_precision():
    vector = np.float32([0.1, 0.2, 0.6])
    assert type(scalar_reward(vector)) is float
    assert scalar_reward(vector) == pytest.approx(0.3, rel=1e-6)
    # In single precision a large reward would swallow the small ones.
    many = np.float32([1e8] + [1.0] * 999)
    assert scalar_reward(many) == (1e8 + 999) / 1000


def test_fingerprint_is_equal_for_equal_numbers():
    name = fingerprint("task", np.array([0.0, 1.0]), 4)
    # Pinned: it is stored in saved models.
    assert name == "task-af216f5ce528"
    assert fingerprint("task", np.array([-0.0, 1.0]), 4.0) == name
    assert fingerprint("task", np.array([0, 1], dtype=np.int32), 4.0) == name
    assert fingerprint("task", np.array([0.0, 9.0, 1.0])[::2], 4.0) == name
    assert fingerprint("task", np.array([0.0, 1.0], dtype=">f8"), 4.0) == name


def test_fingerprint_of_large_arrays_in_parts(monkeypatch):
    array = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    name = fingerprint("task", array, 4)
    monkeypatch.setattr(contract, "HASHED_AT_ONCE", 8)
    assert fingerprint("task", array, 4) == fingerprint("task", array.astype(np.float64), 4) == name
    array[6, 4] += 1.0
    assert fingerprint("task", array, 4) != name


@pytest.mark.parametrize(
    ("prefix", "values"),
    [
        ("other", (np.array([0.0, 1.0]), 4.0)),
        ("task", (np.array([1.0, 0.0]), 4.0)),
        ("task", (np.array([0.0, np.nextafter(1.0, 2.0)]), 4.0)),
        ("task", (np.array([0.0, 1.0]), 5.0)),
        ("task", (np.array([0.0, 1.0, 4.0]),)),
        ("task", (np.array([[0.0, 1.0]]), 4.0)),
    ],
)
def test_fingerprint_differs_for_other_numbers(prefix, values):
    assert fingerprint(prefix, *values) != fingerprint("task", np.array([0.0, 1.0]), 4.0)


def test_integer_takes_every_integer_type():
    for value in (3, np.int64(3), np.uint8(3), np.array(3)):
        assert integer("k", value, minimum=1) == 3
        assert type(integer("k", value, minimum=1)) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None])
def test_integer_refuses(value):
    with pytest.raises(ValueError, match=r"k=.* does not do; give an integer of at least 1"):
        integer("k", value, minimum=1)


def test_our_envs_know_their_bound():
    assert isinstance(ResourceGatheringEnv(), WelfareBounded)
    assert isinstance(HopperVelocityEnv(), WelfareBounded)
