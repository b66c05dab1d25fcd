"""Every space works right, or is refused by the model and by the checker, with what to do about it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.envs import check_represented_env
from tests.probes import Spaces

SMALL: dict[str, Any] = dict(k=2, n_steps=16, batch_size=8, n_epochs=1, seed=0, device="cpu")
BOX, DISCRETE = spaces.Box(-1.0, 1.0, (3,), np.float32), spaces.Discrete(3)


class Noted(Spaces):
    """Remembers the actions that were taken, and starts well."""

    population_id = "noted"

    def reset(self, **kwargs: Any) -> Any:
        self.taken: list[Any] = getattr(self, "taken", [])
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        self.taken.append(action)
        return super().step(action)


def bounds(low: list[float], high: list[float]) -> spaces.Box:
    return spaces.Box(np.array(low, dtype=np.float32), np.array(high, dtype=np.float32))


OBSERVATIONS: list[spaces.Space] = [
    BOX,
    spaces.Box(-1.0, 1.0, (3,), np.float64),
    spaces.Box(-1.0, 1.0, (3,), np.float16),
    spaces.Box(-np.inf, np.inf, (2,), np.float64),
    spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    spaces.Box(0, 9, (3,), np.int64),
    spaces.Box(0, 1, (3,), np.bool_),  # type: ignore[arg-type]
    spaces.Box(0, 255, (36, 36, 3), np.uint8),
    DISCRETE,
    spaces.Discrete(1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 3)),
    spaces.Dict({"x": BOX, "n": DISCRETE, "m": spaces.MultiBinary((2, 2)), "d": spaces.MultiDiscrete([2, 3])}),
]

ACTIONS: list[spaces.Space] = [
    DISCRETE,
    spaces.Discrete(1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
    BOX,
    spaces.Box(-1.0, 1.0, (3,), np.float64),
    spaces.Box(-1.0, 1.0, (2, 3), np.float32),
    spaces.Box(-1000.0, 1000.0, (1,), np.float32),
    spaces.Box(-0.001, 0.001, (1,), np.float32),
    bounds([0.0, -5.0], [2.0, 1.0]),
    bounds([-1.0, 7.0], [1.0, 7.0]),
]

REFUSED_AS_BOTH: list[tuple[Any, str]] = [
    (spaces.Discrete(3, start=-1), "it starts at -1"),
    (spaces.Discrete(3, start=2), "it starts at 2"),
    (spaces.MultiDiscrete([2, 3], start=[0, 1]), r"it starts at \[0, 1\]"),
    (spaces.MultiDiscrete([[2, 3], [2, 2]]), "more than one dimension"),
    (spaces.Box(-1.0, 1.0, (0,), np.float32), "holds no number"),
    (spaces.Box(-1.0, 1.0, (), np.float32), r"give it shape \(1,\)"),
    (spaces.Tuple((BOX, DISCRETE)), "a Tuple cannot be used"),
    (spaces.Text(4), "a Text cannot be used"),
    (spaces.Graph(BOX, DISCRETE), "a Graph cannot be used"),
    (spaces.Sequence(DISCRETE), "a Sequence cannot be used"),
]

REFUSED_OBSERVATIONS: list[tuple[Any, str]] = [
    *REFUSED_AS_BOTH,
    (spaces.Dict({}), "empty Dict"),
    (spaces.Dict({"a": spaces.Dict({"x": BOX})}), "key 'a' is a Dict: .*FlattenObservation"),
    (spaces.Dict({"a": spaces.Tuple((BOX,))}), "key 'a' is a Tuple: .*FlattenObservation"),
    (spaces.Dict({"x": BOX, "n": spaces.Discrete(3, start=1)}), "key 'n'.*it starts at 1"),
    (spaces.Dict({"n": spaces.MultiDiscrete([2, 2], start=[1, 1])}), r"key 'n'.*it starts at \[1, 1\]"),
    (spaces.Dict({"x": spaces.Box(-1.0, 1.0, ())}), r"key 'x'.*give it shape \(1,\)"),
]

REFUSED_ACTIONS: list[tuple[Any, str]] = [
    *REFUSED_AS_BOTH,
    (spaces.MultiBinary((2, 3)), r"take MultiBinary\(6\)"),
    (spaces.Box(-np.inf, np.inf, (2,), np.float32), "no finite lower and upper bound"),
    (bounds([-1.0, 0.0], [1.0, np.inf]), "no finite lower and upper bound"),
    (spaces.Box(0, 9, (3,), np.int64), "its dtype is int64.*MultiDiscrete"),
    (spaces.Box(0, 255, (3,), np.uint8), "its dtype is uint8"),
    (spaces.Box(-1.0, 1.0, (3,), np.float16), "its dtype is float16"),
    (spaces.Box(100.0, 200.0, (2,), np.float32), r"RescaleAction\(env, -1.0, 1.0\)"),
    (spaces.Dict({"x": BOX}), "a Dict cannot be used"),
]


def names(values: list[Any]) -> list[str]:
    return [str(value[0] if isinstance(value, tuple) else value)[:40] for value in values]


@pytest.mark.parametrize("space", OBSERVATIONS, ids=names(OBSERVATIONS))
def test_observations_that_work(space: spaces.Space) -> None:
    env = Noted(space, DISCRETE)
    check_represented_env(env, 20, warn=False)
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    model = RepresentedPPO(policy, env, **SMALL).learn(32)
    assert all(bool(parameter.isfinite().all()) for parameter in model.policy.parameters())
    for index in range(2):
        actions, _ = model.representative(index).predict(space.sample(), deterministic=True)
        assert env.action_space.contains(actions)
    if not isinstance(space, spaces.Dict):
        seen = np.stack([space.sample() for _ in range(5)])
        together = model.predict(seen, deterministic=True, representative=1)[0]
        alone = [int(model.predict(one, deterministic=True, representative=1)[0]) for one in seen]
        assert together.tolist() == alone


@pytest.mark.parametrize(
    ("space", "use_sde"),
    [(space, sde) for space in ACTIONS for sde in (False, True) if not sde or isinstance(space, spaces.Box)],
)
def test_actions_that_work(space: spaces.Space, use_sde: bool) -> None:
    env = Noted(BOX, space)
    check_represented_env(env, 20, warn=False)
    env.taken.clear()
    model = RepresentedPPO("MlpPolicy", env, use_sde=use_sde, **SMALL).learn(32)
    assert all(space.contains(action) for action in env.taken) and len(env.taken) == 32
    distinct = {np.asarray(action).tobytes() for action in env.taken}
    assert len(distinct) > 1 or getattr(space, "n", 0) == 1
    if isinstance(space, spaces.Discrete):
        assert {int(action) for action in env.taken} == set(range(int(space.n)))
    # What was drawn is what the update scores: the buffer has the actions before they are clipped
    model.policy.set_training_mode(False)
    obs, who = th.zeros(4, 3), th.tensor([0, 1, 0, 1])
    actions = model.policy.act(obs, who)
    _, log_prob, _ = model.policy.evaluate_actions(obs, actions, who)
    assert log_prob is not None and log_prob.shape == (4,) and bool(log_prob.isfinite().all())
    np.testing.assert_allclose(model.policy.forward(obs, True, who)[2].shape, (4,))


@pytest.mark.parametrize(("space", "message"), REFUSED_OBSERVATIONS, ids=names(REFUSED_OBSERVATIONS))
def test_observations_that_are_refused(space: Any, message: str) -> None:
    _refused(Noted(space, DISCRETE), "observation", message)


@pytest.mark.parametrize(("space", "message"), REFUSED_ACTIONS, ids=names(REFUSED_ACTIONS))
def test_actions_that_are_refused(space: Any, message: str) -> None:
    _refused(Noted(BOX, space), "action", message)


def _refused(env: Noted, kind: str, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for error, refuse in (
            (ValueError, lambda: RepresentedPPO("MlpPolicy", env, **SMALL)),
            (AssertionError, lambda: check_represented_env(env)),
        ):
            with pytest.raises(error, match=message) as caught:
                refuse()
            assert f"the {kind}" in str(caught.value)


def test_starts_are_refused_in_vec_envs_as_well() -> None:
    from tests.probes import vectorized

    with pytest.raises(ValueError, match="it starts at -1"):
        RepresentedPPO("MlpPolicy", vectorized(lambda: Noted(BOX, spaces.Discrete(3, start=-1)), 2), **SMALL)
