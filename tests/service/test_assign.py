"""New users with weights, reward functions and scores."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_rmdp import RepresentedPPO
from sb3_rmdp.service import EvaluationEpisodes, NewUsers, Origin, Scores, Trajectories, record_episodes
from sb3_rmdp.service.assign import assign_by
from sb3_rmdp.service.rewards import returns_of_function
from sb3_rmdp.service.scores import fit_weights
from tests.service.worlds import WEIGHTS, DictWalk, drawn, factored, obedient, place_of, plain


@pytest.fixture(scope="module")
def model() -> RepresentedPPO:
    """Three representatives, of whom 0 walks down, 1 stays and 2 walks up, for agents with reward vectors."""
    return obedient(DummyVecEnv([plain] * 3), 3)


@pytest.fixture(scope="module")
def episodes(model: RepresentedPPO) -> EvaluationEpisodes:
    """Eight of each."""
    return record_episodes(model, DummyVecEnv([plain] * 3), 8)


@pytest.fixture(scope="module")
def by_features() -> tuple[RepresentedPPO, EvaluationEpisodes]:
    """The same where rewards are factored."""
    model = obedient(DummyVecEnv([factored] * 3), 3)
    return model, record_episodes(model, DummyVecEnv([factored] * 3), 8)


def high(obs: Any, action: Any, next_obs: Any) -> Any:
    """Reward of a user who would be up."""
    return next_obs[..., 0]


def hurried(obs: Any, action: Any, next_obs: Any, info: dict[str, Any]) -> Any:
    """Reward of a user who would go down fast, and by intention."""
    return obs[..., 0] - next_obs[..., 0] - 0.5 * info["drift"]


def brute_force(function: Any, episodes: EvaluationEpisodes) -> np.ndarray:
    """
    :param function: of four arguments
    :param episodes: recorded ones
    :return: returns by a walk through the arrays as they are stored, (k, n_episodes)
    """
    assert episodes.trajectories is not None
    seen, acted = episodes.trajectories.observations[""], episodes.trajectories.actions
    drifts = episodes.trajectories.infos["drift"]
    returns = np.zeros(episodes.lengths.shape)
    row = step = 0
    for j, e in np.ndindex(*returns.shape):
        for _ in range(episodes.lengths[j, e]):
            returns[j, e] += function(seen[row], acted[step], seen[row + 1], {"drift": drifts[step]})
            row, step = row + 1, step + 1
        row += 1
    return returns


@pytest.mark.parametrize("vectorized", [False, True])
def test_reward_functions(model: RepresentedPPO, episodes: EvaluationEpisodes, vectorized: bool) -> None:
    result = model.assign([high, hurried], episodes, vectorized=vectorized)
    for user, function in enumerate((lambda obs, action, next_obs, info: next_obs[0], hurried)):
        returns = brute_force(function, episodes)
        np.testing.assert_allclose(result.expected_returns[user], returns.mean(axis=1), rtol=1e-5)
        np.testing.assert_allclose(result.best_possible[user], returns.max(), rtol=1e-5)
    assert result.representative.tolist() == [2, 0] and result.confident.all() and not result.best_is_given
    (alone,) = model.assign(hurried, episodes, vectorized=vectorized).representative
    assert alone == 0


def test_episodes_from_a_file(model: RepresentedPPO, episodes: EvaluationEpisodes, tmp_path: Path) -> None:
    path = episodes.save(tmp_path / "episodes.npz")
    for where in (path, str(path)):
        assert model.assign(high, where).expected_return[0] == model.assign(high, episodes).expected_return[0]


def test_a_known_agent_is_a_new_user_with_its_weights(
    model: RepresentedPPO, episodes: EvaluationEpisodes, by_features: tuple[RepresentedPPO, EvaluationEpisodes]
) -> None:
    result = model.assign(np.eye(5), episodes)
    np.testing.assert_allclose(result.expected_returns, episodes.returns.mean(axis=1).T, rtol=1e-5)
    assert result.representative[0] == 0 and result.representative[-1] == 2
    other, recorded = by_features
    several = other.assign(WEIGHTS, recorded)
    for agent in range(7):
        one = other.assign(WEIGHTS[agent].tolist(), recorded)
        np.testing.assert_allclose(
            one.expected_returns[0], (recorded.returns @ WEIGHTS[agent]).mean(axis=1), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(one.expected_returns[0], several.expected_returns[agent], rtol=1e-12)


def test_a_dict_of_observations_and_an_agentless_representative() -> None:
    env = DummyVecEnv([lambda: plain(DictWalk())] * 2)
    fixed: dict[str, Any] = dict(assignment="fixed", assignment_kwargs=dict(representatives=[0, 0, 0, 1, 1]))
    model = obedient(env, 3, "MultiInputPolicy", **fixed)
    assert not len(model.representative(2).agents)
    episodes = record_episodes(model, env, 6)
    up = model.assign(lambda obs, action, next_obs: place_of(next_obs) - place_of(obs), episodes)
    assert up.representative[0] == 2 and up.confident[0]
    late = model.assign(lambda obs, action, next_obs: next_obs["time"][:, 0], episodes, vectorized=True)
    lengths = episodes.lengths
    np.testing.assert_allclose(late.expected_returns[0], (lengths * (lengths + 1) / 2).mean(axis=1))


def test_the_best_possible_may_be_known(model: RepresentedPPO, episodes: EvaluationEpisodes) -> None:
    result = model.assign([high, hurried], episodes, best_possible=30.0)
    assert result.best_is_given and result.best_possible.tolist() == [30.0, 30.0]
    np.testing.assert_allclose(result.regret, 30.0 - result.expected_return)
    assert model.assign([high, hurried], episodes, best_possible=[30.0, 20.0]).best_possible.tolist() == [30.0, 20.0]
    for wrong in ([1.0, 2.0, 3.0], np.nan):
        with pytest.raises(ValueError, match="give one finite number, or one per user"):
            model.assign([high, hurried], episodes, best_possible=wrong)


@pytest.mark.parametrize(
    ("users", "text"),
    [
        (np.ones(4), r"shape \(4,\): give one number per agent known in training .* \(5,\), or \(u, 5\)"),
        (np.ones((2, 3, 5)), r"shape \(2, 3, 5\)"),
        (np.ones((0, 5)), r"shape \(0, 5\)"),
        (3.0, r"shape \(\)"),
        ([], r"shape \(0,\)"),
        ([[1.0, 2.0], [1.0]], "no matrix of numbers"),
        ("many", "no matrix of numbers"),
        (np.array([[1.0] * 5, [0.0, 1.0, np.nan, 0.0, 0.0]]), "weight 2 of user 1 is nan"),
    ],
)
def test_wrong_weights(model: RepresentedPPO, episodes: EvaluationEpisodes, users: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        model.assign(users, episodes)


def test_wrong_weights_on_features(by_features: tuple[RepresentedPPO, EvaluationEpisodes]) -> None:
    model, episodes = by_features
    with pytest.raises(ValueError, match=r"one number per reward feature, shape \(3,\), or \(u, 3\) for u users"):
        model.assign(np.ones((2, 7)), episodes)
    with pytest.raises(ValueError, match="confidence=95"):
        model.assign(np.ones(3), episodes, confidence=95)


def late_nan(obs: Any, action: Any, next_obs: Any) -> float:
    """Fails at the third step of episodes that go up."""
    return float("nan") if obs[1] == 2 and obs[0] > 1.0 else 0.0


@pytest.mark.parametrize(
    ("function", "vectorized", "text"),
    [
        (late_nan, False, r"late_nan, called on episode \d of representative [12] at step 2, returned nan: .* finite"),
        (
            lambda o, a, n: [0.0, 1.0],
            False,
            r"episode 0 of representative 0 at step 0, returned shape \(2,\): return one number",
        ),
        (lambda o, a, n: None, False, "returned nan: rewards must be finite"),
        (lambda o, a, n: "much", False, "returned 'much': return a number"),
        (lambda o, a, n: o[7], False, "at step 0, failed: IndexError"),
        (lambda o, a, n: 1.0, True, r"returned shape \(\) for \d steps: return one reward per step, shape \(\d,\)"),
        (lambda o, a, n: n[:, 0] / (n[:, 1] - 2), True, r"episode 0 of representative 0, returned -?inf for step 1"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_failing_functions(episodes: EvaluationEpisodes, function: Any, vectorized: bool, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        returns_of_function(function, episodes, vectorized)


def test_arguments_of_functions(episodes: EvaluationEpisodes) -> None:
    def with_setting(obs: Any, action: Any, next_obs: Any, factor: float = 2.0) -> float:
        return factor

    def with_info(obs: Any, action: Any, next_obs: Any, info: Any = None) -> float:
        return float(info["drift"])

    def any_number(*arguments: Any, strict: bool = True) -> float:
        return float(len(arguments))

    lengths = episodes.lengths
    np.testing.assert_array_equal(returns_of_function(with_setting, episodes), 2.0 * lengths)
    np.testing.assert_array_equal(returns_of_function(partial(with_setting, factor=3.0), episodes), 3.0 * lengths)
    np.testing.assert_array_equal(returns_of_function(any_number, episodes), 4.0 * lengths)
    np.testing.assert_array_equal(returns_of_function(with_info, episodes), np.outer([-1, 0, 1], np.ones(8)) * lengths)
    for wrong in (lambda obs, action: 0.0, lambda a, b, c, d, e: 0.0, lambda: 0.0):
        with pytest.raises(TypeError, match="takes neither"):
            returns_of_function(wrong, episodes)
    with pytest.raises(TypeError, match="cannot be called"):
        assign_by(episodes, [high, 3])
    without = EvaluationEpisodes(episodes.returns, lengths, episodes.origin)
    with pytest.raises(ValueError, match="recorded without trajectories"):
        returns_of_function(high, without)


def scored(episodes: EvaluationEpisodes, weights: np.ndarray, chosen: np.ndarray) -> Scores:
    """
    :param episodes: recorded ones
    :param weights: of a user
    :param chosen: which it scores
    :return: the true returns of these
    """
    return Scores(episodes.returns[chosen[:, 0], chosen[:, 1]].astype(np.float64) @ weights, chosen)


def test_enough_scores_tell_the_weights() -> None:
    rng = np.random.default_rng(0)
    episodes = drawn(rng, rng.normal(size=(4, 5)).tolist(), 1.0, 20)
    weights = rng.normal(size=5)
    chosen = np.argwhere(np.ones((4, 20)))[rng.permutation(80)[:12]]
    fitted = fit_weights(scored(episodes, weights, chosen), episodes)
    np.testing.assert_allclose(fitted.weights, weights, rtol=1e-4)
    assert fitted.error < 1e-3
    by_scores, by_weights = assign_by(episodes, scored(episodes, weights, chosen)), assign_by(episodes, weights)
    np.testing.assert_allclose(by_scores.expected_returns, by_weights.expected_returns, rtol=1e-4, atol=1e-4)
    assert by_scores.fit_error is not None and by_scores.fit_error[0] == fitted.error
    # In any unit
    twice = fit_weights(Scores(2.0 * np.asarray(scored(episodes, weights, chosen).scores), chosen), episodes)
    np.testing.assert_allclose(twice.weights, 2.0 * fitted.weights, rtol=1e-9)
    np.testing.assert_allclose(twice.covariance, 4.0 * fitted.covariance, rtol=1e-6, atol=1e-12)
    # Own trajectories with the features of recorded ones are these
    features = episodes.returns[chosen[:, 0], chosen[:, 1]]
    own = fit_weights(Scores(features.astype(np.float64) @ weights, features=features), episodes)
    np.testing.assert_array_equal(own.weights, fitted.weights)


def test_the_error_of_scores_is_that_of_leaving_one_out() -> None:
    rng = np.random.default_rng(5)
    x, prior = rng.normal(size=(6, 4)), np.diag([1.0, 2.0, 0.5, 1.0])
    y = rng.normal(size=6)
    episodes = EvaluationEpisodes(
        rng.normal(size=(2, 3, 4)).astype(np.float32), np.ones((2, 3), np.int64), Origin("x", 9, None, 4), prior
    )
    # One share of noise, so that there is nothing to weigh
    share = 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sb3_rmdp.service.scores.NOISE", np.array([share]))
        fitted = fit_weights(Scores(y, features=x), episodes)
    kernel = x @ prior @ x.T
    noise = share * kernel.diagonal().mean() * np.eye(6)
    missed = []
    for i in range(6):
        others = np.arange(6) != i
        dual = np.linalg.solve((kernel + noise)[np.ix_(others, others)], y[others])
        missed.append(y[i] - kernel[i, others] @ dual)
    np.testing.assert_allclose(fitted.error, np.sqrt(np.mean(np.square(missed))), rtol=1e-9)
    np.testing.assert_allclose(fitted.weights, prior @ x.T @ np.linalg.solve(kernel + noise, y), rtol=1e-9)


def coverage(n_scores: int, error: float, mixed: bool = False) -> tuple[float, float, float]:
    """
    :param n_scores: of each user
    :param error: standard deviation of scores around returns
    :param mixed: whether rewards are not factored, and users mixtures of known agents
    :return: shares of users whose interval holds the true return, and of false claims, and the mean width of intervals
    """
    rng = np.random.default_rng(0)
    centres = rng.normal(3.0, 2.0, size=(4, 6))
    known = rng.gamma(1.0, size=(100, 6))
    results: list[tuple[bool, bool, float]] = []
    for _ in range(200):
        episodes = drawn(rng, centres.tolist(), 1.0, 20)
        features = episodes.returns.astype(np.float64)
        if mixed:
            returns = (features @ known.T).astype(np.float32)
            episodes = EvaluationEpisodes(returns, episodes.lengths, Origin("none", 100))
        else:
            episodes = EvaluationEpisodes(episodes.returns, episodes.lengths, episodes.origin, known.T @ known / 100)
        user = rng.gamma(1.0, size=6)
        chosen = np.stack([rng.integers(0, 4, n_scores), rng.integers(0, 20, n_scores)], axis=1)
        scores = features[chosen[:, 0], chosen[:, 1]] @ user + error * rng.normal(size=n_scores)
        result = assign_by(episodes, Scores(scores, chosen))
        truth = centres @ user
        j = int(result.representative[0])
        false = bool(result.confident[0]) and j != truth.argmax()
        results.append((bool(result.lower[0] <= truth[j] <= result.upper[0]), false, float(result.upper[0] - result.lower[0])))
    covered, false_claims, width = np.array(results, dtype=np.float64).mean(axis=0)
    return covered, false_claims, width


@pytest.mark.parametrize(
    ("n_scores", "error", "mixed"), [(1, 0.0, False), (3, 0.0, False), (5, 3.0, False), (20, 3.0, False), (5, 0.0, True)]
)
def test_few_scores_make_wide_intervals_not_wrong_ones(n_scores: int, error: float, mixed: bool) -> None:
    covered, false_claims, width = coverage(n_scores, error, mixed)
    assert covered > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 200) and false_claims < 0.05
    exact = coverage(20, 0.0, mixed)[2]
    assert width > exact * (1.5 if n_scores < 20 or error else 1.0)


def test_more_episodes_do_not_help_who_scored_too_few() -> None:
    episodes = drawn(np.random.default_rng(0), [[1.0, 0.0], [0.0, 1.0]], 0.01, 20)
    # Nothing was scored that has anything of the second feature
    result = assign_by(episodes, Scores([1.0, 2.0], features=[[1.0, 0.0], [2.0, 0.0]]))
    assert result.representative[0] == 0 and not result.confident[0] and np.isinf(result.episodes_needed[0])
    assert result.standard_errors[0, 1] > 0.5 > result.standard_errors[0, 0]


def test_a_user_who_is_not_linear_is_told_so(model: RepresentedPPO, episodes: EvaluationEpisodes) -> None:
    def erratic(obs: Any, action: Any, next_obs: Any) -> float:
        return float(np.sin(40.0 * next_obs[0]))

    chosen = np.argwhere(np.ones((3, 8)))[::2]
    truth = returns_of_function(erratic, episodes)
    result = model.assign(Scores(truth[chosen[:, 0], chosen[:, 1]], chosen), episodes)
    assert result.fit_error is not None and result.fit_error[0] > 0.5 * truth.std()
    mean = truth.mean(axis=1)[result.representative[0]]
    assert result.lower[0] <= mean <= result.upper[0] and not result.confident[0]


@pytest.mark.parametrize(
    ("scores", "others", "text"),
    [
        ([], dict(episodes=np.zeros((0, 2), int)), "at least one"),
        ([1.0, np.nan], dict(episodes=[[0, 0], [0, 1]]), "score 1 is not finite"),
        ([0.0, 0.0], dict(episodes=[[0, 0], [0, 1]]), "all scores are 0"),
        ([1.0], dict(), "give either the episodes"),
        ([1.0], dict(episodes=[[0, 0]], features=[[1.0]]), "give either the episodes"),
        ([1.0], dict(episodes=[0, 0]), r"integers of shape \(1, 2\)"),
        ([1.0], dict(episodes=[[0.0, 0.5]]), r"integers of shape \(1, 2\)"),
    ],
)
def test_wrong_scores(scores: Any, others: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Scores(scores, **others)


def test_scores_that_do_not_fit(model: RepresentedPPO, episodes: EvaluationEpisodes) -> None:
    for scores, text in (
        (Scores([1.0], [[3, 0]]), "no episode 0 of representative 3"),
        (Scores([1.0], [[0, 8]]), "no episode 8 of representative 0"),
        (Scores([1.0], features=[[1.0]]), r"give finite numbers of shape \(1, 5\)"),
        (Scores([1.0], features=[[np.inf] * 5]), "finite"),
        (Scores([1.0], features=[[0.0] * 5]), "no scored trajectory paid anything"),
    ):
        with pytest.raises(ValueError, match=text):
            model.assign(scores, episodes)


def test_users_are_what_they_are(model: RepresentedPPO, episodes: EvaluationEpisodes) -> None:
    assert isinstance(model.assign(high, episodes), NewUsers) and len(model.assign([high] * 3, episodes)) == 3
    assert isinstance(episodes.trajectories, Trajectories)
