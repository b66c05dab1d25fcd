"""From what episodes paid new users to the best representative of each, and to how sure that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

#: Returns held at a time, users x representatives x episodes: 32 MB in double precision
BLOCK = 2**22

#: Share of a return below which differences are rounding of single precision
ROUNDING = 1e-6

#: Probability with which as many episodes as are said to be needed will be enough
POWER = 0.8


@dataclass(frozen=True)
class NewUsers:
    """
    Who serves new users, and how well; made by :func:`assign`. Returns are undiscounted.

    :param representative: the best one for each user, by the mean of all episodes, (u,) int64
    :param expected_returns: mean return of each user under each representative, (u, k)
    :param standard_errors: of these means, (u, k)
    :param lower: lower end of the confidence interval of the return under ``representative``, (u,). It allows for the choice:
        the best of k noisy means is too high. Where something fails seldom, it is wider than ``standard_error`` tells
    :param upper: upper end, (u,)
    :param confident: whether ``representative`` is told from all others at the level of confidence, (u,) bool
    :param runner_up: representative with the second-highest mean, (u,) int64; -1 if there is only one
    :param episodes_needed: episodes per representative with which a user will probably be confident, (u,); infinite where
        none would do: returns are equal, or what is not known is the user's reward. 0 if there is only one representative
    :param cross_validated: return of a choice made by one half of the episodes, in the other half, mean of both ways, (u,).
        Not flattered; the number to average over users
    :param best_possible: estimate of the best possible return of each user, (u,): as given, or the best of all episodes
    :param best_is_given: whether it was given
    :param confidence: level, e.g. 0.95
    :param n_episodes: episodes per representative
    :param fit_error: error with which a score is predicted from the other scores, (u,), of users who came with scores
    """

    representative: np.ndarray
    expected_returns: np.ndarray
    standard_errors: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    confident: np.ndarray
    runner_up: np.ndarray
    episodes_needed: np.ndarray
    cross_validated: np.ndarray
    best_possible: np.ndarray
    best_is_given: bool
    confidence: float
    n_episodes: int
    fit_error: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.representative)

    @property
    def k(self) -> int:
        """Number of representatives."""
        return self.expected_returns.shape[1]

    @property
    def expected_return(self) -> np.ndarray:
        """Mean return of each user under its representative, (u,)."""
        return _take(self.expected_returns, self.representative)

    @property
    def standard_error(self) -> np.ndarray:
        """Standard error of ``expected_return``, (u,)."""
        return _take(self.standard_errors, self.representative)

    @property
    def regret(self) -> np.ndarray:
        """What each user misses: ``best_possible - expected_return``, (u,)."""
        return self.best_possible - self.expected_return

    @property
    def regret_lower(self) -> np.ndarray:
        """Lower end of the regret's confidence interval, ``best_possible`` being taken for granted, (u,)."""
        return self.best_possible - self.upper

    @property
    def regret_upper(self) -> np.ndarray:
        """Upper end, (u,)."""
        return self.best_possible - self.lower

    @property
    def group_sizes(self) -> np.ndarray:
        """Number of new users that each representative serves, (k,)."""
        return np.bincount(self.representative, minlength=self.k)

    def __str__(self) -> str:
        if len(self) == 1:
            needed = self.episodes_needed[0]
            more = "no number of episodes would tell" if np.isinf(needed) else f"{needed:.0f} episodes would probably tell"
            sure = "confident" if self.confident[0] else f"not confident, {more}"
            return (
                f"representative {self.representative[0]} ({sure}): expected return {self.expected_return[0]:.2f} in "
                f"[{self.lower[0]:.2f}, {self.upper[0]:.2f}], regret {self.regret[0]:.2f}"
            )
        return (
            f"{len(self)} users: mean return {self.expected_return.mean():.2f} ({self.cross_validated.mean():.2f} "
            f"cross-validated), mean regret {self.regret.mean():.2f}, {100 * self.confident.mean():.1f} % confident"
        )


@dataclass(frozen=True)
class Uncertainty:
    """
    What is not known of a user's reward, in addition to what episodes leave open.

    :param covariance: of the user's mean returns, (k, k)
    :param degrees_of_freedom: of its estimate, at least 1
    """

    covariance: np.ndarray
    degrees_of_freedom: int


@dataclass(frozen=True)
class Moments:
    """
    Returns of a block of users.

    :param users: which ones
    :param means: (b, k)
    :param variances: unbiased, (b, k)
    :param halves: means over episodes 0, 2, ... and over 1, 3, ..., (2, b, k)
    :param best: the highest return of any episode, (b,)
    """

    users: slice
    means: np.ndarray
    variances: np.ndarray
    halves: np.ndarray
    best: np.ndarray


def moments(features: np.ndarray, weights: np.ndarray) -> Iterator[Moments]:
    """
    :param features: what episodes paid, (k, n_episodes, size), with at least 2 episodes
    :param weights: of users, (u, size), in any precision; products are taken in double precision
    :return: the moments of their returns, block by block, so that memory does not grow with the number of users
    """
    k, n_episodes, size = features.shape
    exact = features.astype(np.float64)
    centres = exact.mean(axis=1)
    halves = np.stack([exact[:, half::2].mean(axis=1) for half in (0, 1)])
    # Deviations first, products then: where all episodes are equal, variances are exactly 0
    deviations = np.ascontiguousarray((exact - centres[:, None]).reshape(k * n_episodes, size).T)
    n_users = max(BLOCK // (k * n_episodes), 1)
    for start in range(0, len(weights), n_users):
        users = slice(start, min(start + n_users, len(weights)))
        block = np.asarray(weights[users], dtype=np.float64)
        means = block @ centres.T
        around = (block @ deviations).reshape(len(block), k, n_episodes)
        yield Moments(
            users=users,
            means=means,
            variances=np.einsum("bje,bje->bj", around, around) / (n_episodes - 1),
            halves=np.einsum("bs,hjs->hbj", block, halves, optimize=True),
            best=(means + around.max(axis=2)).max(axis=1),
        )


def judge(
    features: np.ndarray,
    weights: np.ndarray,
    confidence: float = 0.95,
    best_possible: np.ndarray | None = None,
    unknown: Uncertainty | None = None,
) -> NewUsers:
    """
    Find the best representative of each user, and how sure that is. With ``a = 1 - confidence`` and N episodes of each:

    - **Interval** of the return under the chosen representative: from ``mean - t(1 - a / 2k) * error`` to
      ``mean + t(1 - a / 2) * error``, with quantiles of Student's t with N - 1 degrees of freedom. The choice is of the
      highest mean, which is too high rather than too low. So the lower end has to hold for all k representatives at once
      (Bonferroni), and the upper end for one. It covers with ``confidence`` at least, and the more often, the more alike
      representatives are.
    - **Variance** of the chosen one, in interval and tests: at least the mean of the variances of all k. Where something fails
      seldom, the highest mean is that of whoever has not failed yet, and such episodes hardly vary.
    - **Confident**: Welch's one-sided test of the chosen one against each other one, at ``a / (k - 1)``; episodes of
      different representatives are independent. Some representative is called the best that is not with probability a at most.
    - **Episodes needed**: for the hardest of these tests to succeed with probability 0.8, if gaps and variances are as
      estimated.

    :param features: what episodes paid, (k, n_episodes, size)
    :param weights: of users, (u, size)
    :param confidence: level, above 0.5 and below 1
    :param best_possible: best possible returns, (u,); by default the highest return of any episode
    :param unknown: what is not known of their rewards
    :return: who serves them
    """
    k, n_episodes = features.shape[:2]
    n_users, alpha = len(weights), 1.0 - confidence
    freedom = n_episodes - 1 if unknown is None else min(n_episodes - 1, unknown.degrees_of_freedom)
    low, high = stdtrit(freedom, 1.0 - alpha / (2 * k)), stdtrit(freedom, 1.0 - alpha / 2)
    result = NewUsers(
        representative=np.empty(n_users, dtype=np.int64),
        expected_returns=np.empty((n_users, k)),
        standard_errors=np.empty((n_users, k)),
        lower=np.empty(n_users),
        upper=np.empty(n_users),
        confident=np.ones(n_users, dtype=bool),
        runner_up=np.full(n_users, -1, dtype=np.int64),
        episodes_needed=np.zeros(n_users),
        cross_validated=np.empty(n_users),
        best_possible=np.empty(n_users) if best_possible is None else np.asarray(best_possible, dtype=np.float64),
        best_is_given=best_possible is not None,
        confidence=confidence,
        n_episodes=n_episodes,
    )
    tests = None if k == 1 else _Tests(k, n_episodes, alpha, unknown)
    for block in moments(features, weights):
        users = block.users
        chosen = block.means.argmax(axis=1)
        fit = np.zeros(k) if unknown is None else unknown.covariance.diagonal().clip(0.0)
        errors = np.sqrt(block.variances / n_episodes + fit)
        mean, variance = _take(block.means, chosen), chosen_variances(block, chosen)
        error = np.sqrt(variance / n_episodes + fit[chosen])
        result.representative[users] = chosen
        result.expected_returns[users], result.standard_errors[users] = block.means, errors
        result.lower[users], result.upper[users] = mean - low * error, mean + high * error
        even, odd = block.halves
        result.cross_validated[users] = (_take(odd, even.argmax(axis=1)) + _take(even, odd.argmax(axis=1))) / 2
        if best_possible is None:
            result.best_possible[users] = block.best
        if tests is not None:
            result.confident[users], result.runner_up[users], result.episodes_needed[users] = tests(block, chosen)
    return result


def chosen_variances(block: Moments, chosen: np.ndarray) -> np.ndarray:
    """
    :param block: returns of some users
    :param chosen: their representatives, (b,)
    :return: variances of returns under these, not below those that all representatives have in the mean, (b,)
    """
    return np.maximum(_take(block.variances, chosen), block.variances.mean(axis=1))


class _Tests:
    """
    Tests of the chosen representative against all others.

    :param k: number of representatives, at least 2
    :param n_episodes: of each
    :param alpha: probability of an error
    :param unknown: what is not known of rewards
    """

    def __init__(self, k: int, n_episodes: int, alpha: float, unknown: Uncertainty | None):
        self.n_episodes = n_episodes
        self.level = 1.0 - alpha / (k - 1)
        self.unknown = unknown
        # Degrees of freedom are between those of one sample and of two; rounded down, which is on the safe side
        most = 2 * n_episodes - 2 if unknown is None else min(2 * n_episodes - 2, unknown.degrees_of_freedom)
        self._quantiles = stdtrit(np.minimum(np.arange(1, 2 * n_episodes - 1), most), self.level)

    def __call__(self, block: Moments, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """
        :param block: returns of some users
        :param chosen: their representatives, (b,)
        :return: whether users are confident, who comes second, and how many episodes are needed, (b,) each
        """
        n, rows = self.n_episodes, np.arange(len(chosen))
        gaps = _take(block.means, chosen)[:, None] - block.means
        gaps[gaps <= ROUNDING * np.abs(block.means).max(axis=1, keepdims=True)] = 0.0
        own = chosen_variances(block, chosen)[:, None]
        spread = own + block.variances
        squares = own**2 + block.variances**2
        freedom = np.full_like(spread, n - 1.0)
        np.divide((n - 1) * spread**2, squares, out=freedom, where=squares > 0.0)
        quantiles = self._quantiles[np.clip(freedom.astype(np.int64), n - 1, 2 * n - 2) - 1]
        fit = np.zeros_like(spread)
        if self.unknown is not None:
            covariance = self.unknown.covariance
            diagonal = covariance.diagonal()
            fit = (diagonal[chosen][:, None] + diagonal - 2.0 * covariance[chosen]).clip(0.0)
        told = (gaps > quantiles * np.sqrt(spread / n + fit)) & (gaps > 0.0)

        # Sample size of a two-sample test, with Guenther's term for the t distribution
        normal = ndtri(self.level)
        both = normal + ndtri(POWER)
        room = gaps**2 - both**2 * fit
        needed = np.full_like(spread, np.inf)
        np.divide(both**2 * spread, room, out=needed, where=room > 0.0)
        needed = np.ceil(needed + normal**2 / 4).clip(2.0)

        told[rows, chosen], needed[rows, chosen] = True, 0.0
        others = block.means.copy()
        others[rows, chosen] = -np.inf
        return told.all(axis=1), others.argmax(axis=1), needed.max(axis=1)


def _take(table: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.take_along_axis(table, columns[:, None], axis=1)[:, 0]
