"""The assignment's turn after a rollout (the E-step), and what there is to log about it."""

from __future__ import annotations

import numpy as np
import torch as th

from sb3_rmdp.common.assignment import Assignment
from sb3_rmdp.common.returns import ReturnTracker
from sb3_rmdp.common.welfare import Welfare


def reassign(assignment: Assignment, tracker: ReturnTracker, progress: float, welfare: Welfare) -> dict[str, float]:
    """
    Let the assignment reassign agents, and say what each of them counts from now on.

    :param assignment: connected to the environment's rewards
    :param tracker: returns of the rollout
    :param progress: share of the training that is done, from 0 to 1
    :param welfare: learns what agents had, and says whom to do more for
    :return: values to log, by name. Welfare is missing as long as a representative that serves somebody has not finished an
        episode
    """
    before = assignment.representatives
    assignment.update(progress)
    probabilities = assignment.probabilities
    after = assignment.representatives
    entropy = abs((probabilities * np.log(np.clip(probabilities, 1e-12, None))).sum(axis=1).mean())
    logs = {
        "assignment/reassigned": int((before != after).sum()),
        "assignment/entropy": float(entropy),
        "assignment/smallest_group": int(np.bincount(after, minlength=assignment.k).min()),
    }
    if assignment.needs_trajectories:
        lessons = assignment.lessons()
        logs["assignment/lessons"] = len(lessons)
        logs["assignment/moves"] = sum(lesson.new for lesson in lessons)
    served, tracker.shares = _served(assignment, probabilities, tracker.utilities())
    if not np.isnan(served).any():
        logs["rollout/social_welfare"] = float(served.mean())
        logs["rollout/welfare_min"] = float(served.min())
    if not welfare.is_plain:
        welfare.observe(*_weighed(assignment, probabilities, tracker, served))
    weights = welfare.weights()
    if weights is None:
        assignment.importance = None
        return logs
    assignment.importance = th.as_tensor(weights, dtype=th.float32, device=assignment.alpha.device)
    logs["welfare/value"] = welfare.value(welfare.enjoyed(welfare.averages))
    logs["welfare/largest_weight"] = float(weights.max())
    if welfare.minimum is not None:
        logs["welfare/largest_multiplier"] = float(welfare.multipliers.max())
    return logs


def _served(assignment: Assignment, probabilities: np.ndarray, utilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    :param assignment: connected to the environment's rewards
    :param probabilities: its probabilities (n_agents, k)
    :param utilities: mean returns (size, k)
    :return: what agents have under the assignment, (n_agents,), and what each representative adds to their mean, (k,)
    """
    weights, served, shares = assignment.reward_weights, np.empty(assignment.n_agents), np.zeros(assignment.k)
    columns = th.as_tensor(utilities)
    for agents in weights.blocks():
        of_agents, probable = weights.of_agents(columns, agents).numpy(), probabilities[agents]
        # A representative that has not finished an episode yet (nan) is no matter to agents it does not serve
        parts = np.where(probable > 0, probable * of_agents, 0.0)
        served[agents] = parts.sum(axis=1)
        shares += parts.sum(axis=0) / assignment.n_agents
    return served, shares


def _weighed(
    assignment: Assignment, probabilities: np.ndarray, tracker: ReturnTracker, served: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """
    :param assignment: connected to the environment's rewards
    :param probabilities: its probabilities (n_agents, k)
    :param tracker: when the rollout is complete
    :param served: what agents have under the assignment, (n_agents,)
    :return: the same with representatives in proportion to what the rollout counts for them, and what it counts for each
        agent, (n_agents,); agents of representatives without an episode in it keep what they have, and a weight of 0
    """
    counts = probabilities @ tracker.weights
    if (tracker.weights == 1.0).all():
        return served, counts
    told = tracker.means.numpy().T.astype(np.float64)
    of_rollout, _ = _served(assignment, probabilities * tracker.weights.astype(np.float32), told)
    return np.divide(of_rollout, counts, out=served.copy(), where=counts > 0), counts
