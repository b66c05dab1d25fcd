"""Weights of a user who comes with a few scored trajectories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sb3_rmdp.service.episodes import EvaluationEpisodes

#: Noise of scores to be tried, as a share of what scores are expected to vary by: from none to nothing else
NOISE = 10.0 ** np.arange(-8.0, 2.5, 0.5)


@dataclass(frozen=True)
class Scores:
    """
    What a user says that some trajectories are worth, as totals in any unit, of which 0 is a trajectory that is worth nothing.

    :param scores: one per trajectory, (s,), finite, not all 0
    :param episodes: which of the recorded episodes they are of: representative and number of each, int (s, 2)
    :param features: or, for trajectories of one's own, what each paid every reward feature, or every agent known in training
        if rewards are not factored: (s, size)
    :raises ValueError: if shapes do not fit together, or the scores tell nothing
    """

    scores: ArrayLike
    episodes: ArrayLike | None = None
    features: ArrayLike | None = None

    def __post_init__(self) -> None:
        scores = np.asarray(self.scores, dtype=np.float64)
        if scores.ndim != 1 or not len(scores):
            raise ValueError(f"scores have shape {scores.shape}: give one per trajectory, (s,), at least one")
        if not np.isfinite(scores).all():
            raise ValueError(f"score {int(np.argmin(np.isfinite(scores)))} is not finite: leave such trajectories out")
        if not scores.any():
            raise ValueError("all scores are 0, which does not tell trajectories apart: score others as well")
        if (self.episodes is None) == (self.features is None):
            raise ValueError("give either the episodes that were scored or the features of other trajectories")
        if self.episodes is not None:
            episodes = np.asarray(self.episodes)
            if episodes.shape != (len(scores), 2) or not np.issubdtype(episodes.dtype, np.integer):
                raise ValueError(
                    f"episodes have shape {episodes.shape} and type {episodes.dtype}: give the representative and the number "
                    f"of each scored episode, integers of shape ({len(scores)}, 2)"
                )
            object.__setattr__(self, "episodes", episodes)
        object.__setattr__(self, "scores", scores)


@dataclass(frozen=True)
class FittedWeights:
    """
    What scores tell of a user's weights.

    :param weights: (size,) float64
    :param covariance: what is not known of the user's mean return under each representative, (k, k): to be added to the
        covariance of their estimates
    :param error: root mean square of the errors that fits to all scores but one make at this one
    :param n_scores: number of scores
    """

    weights: np.ndarray
    covariance: np.ndarray
    error: float
    n_scores: int


def fit_weights(scores: Scores, episodes: EvaluationEpisodes) -> FittedWeights:
    """
    Bayesian linear regression of scores on features, or on returns of the agents known in training.

    Before any score, the user's weights are normally distributed around 0 with covariance ``t * M``, where M is the mean
    over trained agents of the outer product of their weights: directions that they care for are those that a new user is
    expected to care for, in any unit. Scores have independent normal errors of variance ``t * s``. For each s of a grid t is
    the likeliest one, and each s counts by its likelihood. Without features every agent is a feature, and M = I / n: the user
    is taken for a mixture of known agents. It works for any number of scores; few say little, and errors are as large as that.

    Each score is then predicted from the others. If it is missed by more than the model expects, the covariance is scaled up
    accordingly: a user whose rewards are not linear in the features gets wide intervals, not wrong ones.

    :param scores: of a user
    :param episodes: recorded ones
    :return: weights and their errors
    :raises ValueError: if scored episodes do not exist, features have another length, or all of these are 0
    """
    y = np.asarray(scores.scores, dtype=np.float64)
    x = _features(scores, episodes)
    prior = episodes.mean_square

    def spread(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Products with the prior covariance in the middle, but for t."""
        return left @ right.T / episodes.size if prior is None else left @ prior @ right.T

    kernel = spread(x, x)
    unit = float(kernel.diagonal().mean())
    if unit <= 0.0:
        raise ValueError(
            "no scored trajectory paid anything to anybody known in training, so scores tell nothing: score others"
        )
    values, vectors = np.linalg.eigh(kernel)
    values = values.clip(0.0)
    rotated = vectors.T @ y
    # For each share of noise, the best t and the likelihood at it; few scores leave the share open, so all of them count
    spectra = values + NOISE[:, None] * unit
    scales = np.mean(rotated**2 / spectra, axis=1)
    logs = -(len(y) * np.log(scales) + np.log(spectra).sum(axis=1)) / 2
    likelihoods = np.exp(logs - logs.max())
    likelihoods /= likelihoods.sum()

    means = episodes.returns.mean(axis=1, dtype=np.float64)
    seen, unseen = spread(means, x), spread(means, means)
    dual, covariance, expected = np.zeros(len(y)), np.zeros((episodes.k, episodes.k)), []
    missed = np.zeros(len(y))
    for likelihood, noise, spectrum, scale in zip(likelihoods, NOISE * unit, spectra, scales, strict=True):
        inverse = (vectors / spectrum) @ vectors.T
        own = inverse @ y
        # Prediction of each score from the others, in closed form: Rasmussen and Williams, eq. 5.12
        errors = own / inverse.diagonal()
        surprise = np.mean(errors**2 * inverse.diagonal()) / scale
        # Errors of scores may be what the user has of an episode beyond all features: they are part of its mean returns, too
        beyond = noise / episodes.n_episodes * np.eye(episodes.k)
        covariance += likelihood * scale * max(surprise, 1.0) * (unseen - seen @ inverse @ seen.T + beyond)
        dual += likelihood * own
        missed += likelihood * errors
        expected.append(seen @ own)
    # What shares of noise disagree about is not known either
    covariance += np.cov(np.array(expected).T, aweights=likelihoods, bias=True).reshape(covariance.shape)
    weights = x.T @ dual / episodes.size if prior is None else prior @ (x.T @ dual)
    return FittedWeights(weights, covariance, float(np.sqrt(np.mean(missed**2))), len(y))


def _features(scores: Scores, episodes: EvaluationEpisodes) -> np.ndarray:
    """
    :param scores: of a user
    :param episodes: recorded ones
    :return: what the scored trajectories paid, (s, size) float64
    :raises ValueError: if that is not known, or not finite
    """
    if scores.episodes is not None:
        chosen = np.asarray(scores.episodes)
        episodes.check_episodes(chosen)
        return episodes.returns[chosen[:, 0], chosen[:, 1]].astype(np.float64)
    features = np.asarray(scores.features, dtype=np.float64)
    wanted = (len(np.asarray(scores.scores)), episodes.size)
    if features.shape != wanted or not np.isfinite(features).all():
        raise ValueError(f"features of scored trajectories have shape {features.shape}: give finite numbers of shape {wanted}")
    return features
