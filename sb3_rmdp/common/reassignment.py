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
    served = _served(assignment, probabilities, tracker.utilities())
    if np.isfinite(served).all():
        logs["rollout/social_welfare"] = float(served.mean())
        logs["rollout/welfare_min"] = float(served.min())
    welfare.observe(served)
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


def _served(assignment: Assignment, probabilities: np.ndarray, utilities: np.ndarray) -> np.ndarray:
    """
    :param assignment: connected to the environment's rewards
    :param probabilities: its probabilities (n_agents, k)
    :param utilities: mean returns (size, k)
    :return: what agents have under the assignment, (n_agents,)
    """
    weights, served = assignment.reward_weights, np.empty(assignment.n_agents)
    columns = th.as_tensor(utilities)
    for agents in weights.blocks():
        of_agents, shares = weights.of_agents(columns, agents).numpy(), probabilities[agents]
        # A representative that has not finished an episode yet (nan) is no matter to agents it does not serve
        served[agents] = np.where(shares > 0, shares * of_agents, 0.0).sum(axis=1)
    return served
