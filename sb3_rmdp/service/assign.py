"""Who serves users who were not in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike

from sb3_rmdp.common.arguments import Number, refusal
from sb3_rmdp.service.episodes import EvaluationEpisodes
from sb3_rmdp.service.judging import NewUsers, Uncertainty, judge
from sb3_rmdp.service.rewards import RewardFunction, returns_of_function
from sb3_rmdp.service.scores import Scores, fit_weights

if TYPE_CHECKING:
    from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm

#: What new users come with
Users: TypeAlias = ArrayLike | RewardFunction | Sequence[object] | Scores


def assign(
    model: RepresentedOnPolicyAlgorithm,
    users: Users,
    episodes: EvaluationEpisodes | str | Path,
    confidence: float = 0.95,
    best_possible: ArrayLike | None = None,
    vectorized: bool = False,
) -> NewUsers:
    """
    Find the best representative of users who were not in training, without training and without acting.

    :param model: the model
    :param users: weights on reward features, (m,) or (u, m); or a reward function ``r(obs, action, next_obs)`` or
        ``r(obs, action, next_obs, info)``, or a list of such; or :class:`Scores`. Where rewards are not factored, weights are
        on the rewards of the n agents known in training, (n,) or (u, n): a new user as a mixture of these
    :param episodes: recorded with this very model by :func:`record_episodes`, or their file
    :param confidence: level of intervals and of choices, above 0.5 and below 1
    :param best_possible: best possible return of a user by a policy of its own, if it is known: one number or (u,). By default
        it is estimated by the best of all recorded episodes: what somebody was lucky enough to have (too much, if the
        environment is random), of what was tried for others (too little, if nobody alike was in training)
    :param vectorized: reward functions take all steps of an episode at once, see :func:`returns_of_function`
    :return: who serves them, and how well
    :raises ValueError: if episodes are of another model, or something about the users is not as it should be
    """
    check_confidence(confidence)
    if not isinstance(episodes, (EvaluationEpisodes, str, Path)):
        raise refusal("episodes", episodes, "give those that record_episodes returns, or their file")
    if not isinstance(episodes, EvaluationEpisodes):
        episodes = EvaluationEpisodes.load(episodes)
    episodes.check_model(model)
    return assign_by(episodes, users, confidence, best_possible, vectorized)


def assign_by(
    episodes: EvaluationEpisodes,
    users: Users,
    confidence: float = 0.95,
    best_possible: ArrayLike | None = None,
    vectorized: bool = False,
) -> NewUsers:
    """
    The same without the model, which is needed only to see that the episodes are its own.

    :param episodes: recorded ones; for the rest, and the result, see :func:`assign`
    """
    features, unknown, error = episodes.returns, None, None
    if isinstance(users, Scores):
        fitted = fit_weights(users, episodes)
        weights = fitted.weights[None]
        unknown, error = Uncertainty(fitted.covariance, fitted.n_scores), np.array([fitted.error])
    elif callable(users) or (isinstance(users, (list, tuple)) and any(callable(user) for user in users)):
        functions = [users] if callable(users) else cast(Sequence[RewardFunction], users)
        features = np.stack([returns_of_function(function, episodes, vectorized) for function in functions], axis=-1)
        # Every user is a feature, and cares for nothing else
        weights = np.eye(len(functions))
    else:
        weights = checked_weights(cast(ArrayLike, users), episodes.size, episodes.factored)
    bound = None if best_possible is None else _checked_bound(best_possible, len(weights))
    result = judge(features, weights, confidence, bound, unknown)
    return result if error is None else replace(result, fit_error=error)


def check_confidence(confidence: float) -> None:
    """
    :param confidence: a level
    :raises ValueError: if it is none
    """
    try:
        Number(0.5, 1, above=True, below=True).read(confidence)
    except ValueError:
        raise refusal("confidence", confidence, "give a level above 0.5 and below 1, e.g. 0.95") from None


def checked_weights(weights: ArrayLike, size: int, factored: bool) -> np.ndarray:
    """
    :param weights: of new users
    :param size: how many a user has
    :param factored: whether they are on reward features, not on agents
    :return: the same, (u, size), in their own precision
    :raises ValueError: if their shape is another, there are none, or one is not finite
    """
    try:
        array = np.asarray(weights)
        if array.dtype.kind not in "fiub":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"weights of new users are no matrix of numbers: {error}") from error
    rows = array[None] if array.ndim == 1 else array
    if rows.ndim != 2 or rows.shape[1] != size or not len(rows):
        what = "reward feature" if factored else "agent known in training (this model's rewards are not factored)"
        raise ValueError(
            f"weights of new users have shape {array.shape}: give one number per {what}, shape ({size},), or (u, {size}) for "
            "u users"
        )
    # The sum is finite unless an entry is not: one pass without a temporary
    if not np.isfinite(rows.sum(dtype=np.float64)) and not np.isfinite(rows).all():
        user, entry = np.argwhere(~np.isfinite(rows))[0]
        raise ValueError(f"weight {entry} of user {user} is {rows[user, entry]}: weights must be finite")
    return rows


def _checked_bound(best_possible: ArrayLike, n_users: int) -> np.ndarray:
    bound = np.asarray(best_possible, dtype=np.float64)
    if bound.shape not in ((), (n_users,)) or not np.isfinite(bound).all():
        raise ValueError(f"best_possible has shape {bound.shape}: give one finite number, or one per user, shape ({n_users},)")
    return np.broadcast_to(bound, (n_users,)).copy()
