"""Welfare of utilities, and what agents count for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sb3_rmdp.common import welfare as module
from sb3_rmdp.common.welfare import WELFARES, Egalitarian, Gini, Welfare, gini_coefficient, make_welfare

CASES: list[tuple[str, dict[str, Any]]] = [
    ("utilitarian", {}),
    ("nash", {}),
    ("nash", {"shift": 3.0}),
    ("egalitarian", {}),
    ("egalitarian", {"temperature": 0.7}),
    ("alpha_fair", {"alpha": 0.5}),
    ("alpha_fair", {"alpha": 1.0}),
    ("alpha_fair", {"alpha": 2.5, "shift": 1.0}),
    ("gini", {}),
    ("gini", {"rank_weights": [4.0, 2.0, 2.0, 1.0, 1.0, 0.0]}),
]
UTILITIES = np.array([1.0, 7.0, 2.5, 4.0, 2.0, 9.0])


def observed(name: str, utilities: Any, **kwargs: Any) -> Welfare:
    made = make_welfare(name, len(utilities), kwargs)
    made.observe(np.asarray(utilities, dtype=np.float64))
    return made


@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        ("utilitarian", {}, 3.5),
        ("nash", {}, 24.0**0.25),
        ("nash", {"shift": 1.0}, (2.0 * 3.0 * 4.0 * 9.0) ** 0.25 - 1.0),
        ("egalitarian", {}, 1.0),
        ("alpha_fair", {"alpha": 0.0}, 3.5),
        ("alpha_fair", {"alpha": 1.0}, 48.0**0.25),
        ("alpha_fair", {"alpha": 2.0}, 4.0 / (1 + 1 / 2 + 1 / 3 + 1 / 8)),  # harmonic mean
        ("gini", {}, (7 * 1 + 5 * 2 + 3 * 3 + 8) / 16),
        ("gini", {"rank_weights": [2.0, 1.0, 1.0, 0.0]}, (2 * 1 + 2 + 3) / 4),
    ],
)
def test_values(name: str, kwargs: dict[str, Any], expected: float) -> None:
    utilities = np.array([3.0, 1.0, 8.0, 2.0])
    if name == "nash" and not kwargs:
        utilities, expected = np.array([3.0, 1.0, 4.0, 2.0]), 24.0**0.25
    assert make_welfare(name, 4, kwargs).value(utilities) == pytest.approx(expected)


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_what_everybody_has_is_welfare(name: str, kwargs: dict[str, Any]) -> None:
    made = make_welfare(name, 6, kwargs)
    assert made.value(np.full(6, 2.5)) == pytest.approx(2.5)
    np.testing.assert_allclose(made.gradient(np.full(6, 2.5)), made.gradient(np.full(6, 2.5))[0])


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_gradients_by_finite_differences(name: str, kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLOOR", 0.0)
    made = make_welfare(name, 6, kwargs)
    value = made.value
    if isinstance(made, Egalitarian):
        temperature = made.temperature or made._softness(UTILITIES)

        def value(utilities: np.ndarray) -> float:
            return -temperature * float(np.log(np.exp(-utilities / temperature).mean()))

    gradient = np.empty(6)
    for agent in range(6):
        step = 1e-6 * np.eye(6)[agent]
        gradient[agent] = (value(UTILITIES + step) - value(UTILITIES - step)) / 2e-6
    expected = made.gradient(UTILITIES)
    np.testing.assert_allclose(gradient / gradient.sum(), expected / expected.sum(), atol=1e-6)


def test_gini_counts_equals_alike() -> None:
    made = Gini(5)  # 9, 7, 5, 3, 1 of 25
    assert made.gradient(np.array([2.0, 1.0, 2.0, 0.0, 2.0])).tolist() == pytest.approx(
        [3 / 25, 7 / 25, 3 / 25, 9 / 25, 3 / 25]
    )
    assert gini_coefficient(np.array([1.0, 1.0, 1.0])) == pytest.approx(0.0)
    assert gini_coefficient(np.array([0.0, 0.0, 0.0, 8.0])) == pytest.approx(0.75)
    utilities = np.array([3.0, 1.0, 8.0, 2.0])
    differences = np.abs(utilities[:, None] - utilities).mean() / (2 * utilities.mean())
    assert gini_coefficient(utilities) == pytest.approx(differences)
    assert Gini(4).value(utilities) == pytest.approx(utilities.mean() * (1 - differences))
    assert np.isnan(gini_coefficient(np.zeros(3))) and np.isnan(gini_coefficient(np.array([1.0, -1.0])))


@pytest.mark.parametrize(("name", "kwargs"), CASES)
def test_weights_are_bounded_and_of_mean_one(name: str, kwargs: dict[str, Any]) -> None:
    for utilities in (UTILITIES, [0.0, 0.0, 50.0, 1e-9, 3.0, 1e6], [0.0] * 6, [1e300, 1.0, 1.0, 1.0, 1.0, 2.0]):
        made = observed(name, utilities, max_ratio=20.0, **kwargs)
        weights = made.weights()
        if name == "utilitarian":
            assert weights is None
            continue
        assert weights is not None and np.isfinite(weights).all() and weights.mean() == pytest.approx(1.0)
        assert weights.max() <= 20.0 * weights.min() * (1 + 1e-9)
        # Who has less never counts less
        order = np.argsort(utilities, kind="stable")
        assert (np.diff(weights[order]) <= 1e-9).all()


def test_utilities_are_averaged_and_wait_for_everybody() -> None:
    made = make_welfare("nash", 3, dict(mixing=0.25))
    made.observe(np.array([4.0, np.nan, 1.0]))
    assert made.weights() is None
    np.testing.assert_allclose(made.averages, [4.0, np.nan, 1.0])
    made.observe(np.array([8.0, 2.0, np.nan]))
    # 0.75 * 0.25 * 4 + 0.25 * 8 over the sum of weights
    np.testing.assert_allclose(made.averages, [(0.75 * 0.25 * 4 + 0.25 * 8) / (0.75 * 0.25 + 0.25), 2.0, 1.0])
    weights = made.weights()
    assert weights is not None and weights[2] > weights[1] > weights[0]


def test_who_leaves_counts_little_and_who_might_stay_counts() -> None:
    weights = observed("utilitarian", [5.0, 5.0, 5.0], outside_options=[0.0, 5.0, 10.0]).weights()
    assert weights is not None
    assert weights[1] / weights[0] == pytest.approx(0.5, abs=1e-3) and weights[2] / weights[0] == pytest.approx(0.01)
    made = make_welfare("egalitarian", 3, dict(outside_options=[0.0, 5.0, 10.0]))
    assert made.enjoyed(np.array([1.0, 2.0, 3.0])).tolist() == [1.0, 5.0, 10.0]
    assert made.value(made.enjoyed(np.array([6.0, 2.0, 3.0]))) == 5.0
    # Nobody reached yet what there is elsewhere: the nearest are worth most
    weights = observed("utilitarian", [0.0, 1.0, 2.0], outside_options=50.0).weights()
    assert weights is not None and weights[2] > weights[1] > weights[0] > 0


def test_multipliers_grow_as_long_as_a_guarantee_is_broken() -> None:
    made = make_welfare("utilitarian", 3, dict(minimum=[2.0, -np.inf, 2.0], mixing=1.0, step=0.5))
    found = []
    for low in (1.0, 1.0, 3.0, 5.0, 5.0):
        made.observe(np.array([low, -7.0, 2.0]))
        found.append(made.multipliers.tolist())
    # Half of what is missing is added up, and ten times as much counts as long as it is missing
    assert found == [[0.25 + 2.5, 0, 0], [0.5 + 2.5, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    made.observe(np.array([1.0, 0.0, 2.0]))
    weights = made.weights()
    assert weights is not None
    np.testing.assert_allclose(weights, np.array([3.75, 1.0, 1.0]) * 3 / 5.75)
    for _ in range(1000):
        made.observe(np.zeros(3))
    assert made.multipliers.tolist() == [100.0, 0.0, 100.0]


def test_a_guarantee_that_agents_have_elsewhere_is_kept() -> None:
    made = make_welfare("utilitarian", 3, dict(minimum=40.0, outside_options=[45.0, 0.0, 30.0], mixing=1.0, max_ratio=1e9))
    for _ in range(100):
        made.observe(np.array([10.0, 60.0, 10.0]))
    assert made.multipliers[:2].tolist() == [0.0, 0.0] and made.weights()[0] < 0.1 * made.weights()[1]  # type: ignore[index]
    # What is missing to what the third has elsewhere: 10 of 40, not 30
    assert made.multipliers[2] == pytest.approx(0.1 * (100 + module.DAMPING) * 0.25)


@pytest.mark.parametrize(("name", "kwargs"), CASES)
@pytest.mark.parametrize("minimum", [None, -np.inf, 0.0, 3.0, [2.0, -np.inf, 3.0, 0.0, 8.0, -np.inf]])
@pytest.mark.parametrize("outside_options", [None, -np.inf, 0.0, 2.5, [2.0, -np.inf, 0.0, 3.5, -np.inf, 1.0]])
@pytest.mark.parametrize("mixing", [0.3, 1.0])
def test_what_agents_may_be_promised_and_have_elsewhere(
    name: str, kwargs: Any, minimum: Any, outside_options: Any, mixing: float
) -> None:
    more = dict(minimum=minimum, outside_options=outside_options, mixing=mixing)
    made, rng = make_welfare(name, 6, kwargs | more), np.random.default_rng(0)
    least = np.broadcast_to(-np.inf if minimum is None else np.asarray(minimum), (6,))
    elsewhere = np.broadcast_to(-np.inf if outside_options is None else np.asarray(outside_options), (6,))
    for rollout in range(30):
        utilities = UTILITIES * rng.uniform(0.9, 1.1, 6)
        if rollout < 20:
            utilities[rollout % 6] = np.nan
        made.observe(utilities)
        weights, multipliers = made.weights(), made.multipliers
        assert np.isfinite(multipliers).all() and (multipliers >= 0).all() and not multipliers[least == -np.inf].any()
        if weights is not None:
            assert np.isfinite(weights).all() and weights.mean() == pytest.approx(1.0)
    if made.is_plain:
        assert name == "utilitarian" and not np.isfinite(np.stack([least, elsewhere])).any()
        return
    enjoyed = made.enjoyed(made.averages)
    np.testing.assert_allclose(enjoyed, np.maximum(made.averages, elsewhere))
    assert np.isfinite(made.value(enjoyed))
    # Within a tenth of what they have, it is a matter of chance
    assert not made.multipliers[enjoyed > 1.1 * least].any() and (made.multipliers[enjoyed < 0.9 * least] > 0).all()


def test_no_outside_option_is_not_one_of_minus_infinity() -> None:
    """As many agents as there are options count by a sigmoid; others count as without."""
    some = observed("nash", UTILITIES, outside_options=[-np.inf] * 5 + [1.0]).weights()
    none = observed("nash", UTILITIES).weights()
    assert some is not None and none is not None
    np.testing.assert_allclose(some / some[0], none / none[0], rtol=1e-9)
    everywhere = observed("nash", UTILITIES, outside_options=-np.inf, minimum=[-np.inf] * 6)
    assert everywhere.outside_options is None and everywhere.minimum is None
    assert everywhere.weights().tolist() == none.tolist()  # type: ignore[union-attr]
    assert make_welfare("utilitarian", 3, dict(outside_options=-np.inf)).is_plain


def test_a_model_that_goes_on_counts_as_the_one_that_was_saved() -> None:
    kwargs = dict(minimum=[2.0, 4.0, -np.inf], outside_options=[0.0, 3.0, 9.0])
    made, again = (make_welfare("nash", 3, kwargs) for _ in range(2))
    for _ in range(5):
        made.observe(np.array([1.0, 2.0, 3.0]))
    again.state = made.state.clone()
    again.restore()
    assert again.weights().tolist() == made.weights().tolist()  # type: ignore[union-attr]


def test_rollouts_count_by_their_weights() -> None:
    made = make_welfare("nash", 2, dict(mixing=0.5))
    made.observe(np.array([4.0, 1.0]), np.array([1.0, 0.0]))  # with nothing else to go by
    made.observe(np.array([1.0, 9.0]), np.array([3.0, 0.0]))
    # 0.25 * 4 + 0.5 * 3 * 1 over 0.25 + 1.5; and nothing of the second
    np.testing.assert_allclose(made.averages, [2.5 / 1.75, 1.0])


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("rawls", {}, "welfare='rawls' is unknown: choose one of .*egalitarian"),
        ("nash", {"alpha": 2.0}, r"\['alpha'\], which 'nash' does not know: it takes \['shift', 'outside_options', 'minimum'"),
        ("alpha_fair", {"alpha": -1.0}, "alpha=-1.0"),
        ("alpha_fair", {"alpha": np.inf}, "alpha=inf.*egalitarian"),
        ("egalitarian", {"temperature": 0.0}, "temperature=0.0"),
        ("gini", {"rank_weights": [1.0, 2.0, 3.0]}, "rank_weights must not"),
        ("gini", {"rank_weights": [1.0, 0.5]}, r"rank_weights has shape \(2,\): give one number, or 3 of them"),
        ("gini", {"rank_weights": [1.0, 0.5, -0.5]}, "rank_weights must not"),
        ("utilitarian", {"outside_options": [1.0, 2.0]}, r"outside_options has shape \(2,\): give one number, or 3 of them"),
        ("utilitarian", {"outside_options": [1.0, 2.0, np.nan]}, "outside_options has entries that are nan or infinite"),
        ("utilitarian", {"minimum": "much"}, "minimum='much' is neither"),
        ("utilitarian", {"minimum": np.inf}, "minimum has entries"),
        ("nash", {"mixing": 0.0}, "mixing=0.0"),
        ("nash", {"max_ratio": 0.5}, "max_ratio=0.5"),
        ("nash", {"step": 0.0}, "step=0.0"),
    ],
)
def test_bad_arguments(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_welfare(name, 3, kwargs)


@pytest.mark.parametrize("name", ["nash", "alpha_fair"])
def test_negative_utilities_ask_for_a_shift(name: str) -> None:
    message = r"the 1-th has -2.5: choose welfare_kwargs=dict\(shift=...\) of 2.5 or more"
    with pytest.raises(ValueError, match=message):
        observed(name, [1.0, -2.5, 3.0])
    assert observed(name, [1.0, -2.5, 3.0], shift=2.5).weights() is not None
    # What nobody has to take does no harm
    assert observed(name, [1.0, -2.5, 3.0], outside_options=0.0).weights() is not None


def test_every_welfare_is_tested() -> None:
    assert {name for name, _ in CASES} == set(WELFARES)
