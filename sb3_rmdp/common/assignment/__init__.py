"""
Assignments of agents to representatives, by name.

To add one: a file with a subclass of :class:`Assignment` in this folder, and a line in :data:`ASSIGNMENTS`.
"""

from __future__ import annotations

import importlib
from typing import Any

from sb3_rmdp.common.arguments import check_keywords, keyword_names, most_alike, shown
from sb3_rmdp.common.assignment.base import Assignment, HardAssignment
from sb3_rmdp.common.assignment.clustering import ClusteringAssignment
from sb3_rmdp.common.assignment.em import EMAssignment
from sb3_rmdp.common.assignment.end_to_end import EndToEndAssignment
from sb3_rmdp.common.assignment.episodes import EpisodeAssignment
from sb3_rmdp.common.assignment.fixed import FixedAssignment
from sb3_rmdp.common.assignment.random import RandomAssignment

ASSIGNMENTS: dict[str, type[Assignment]] = {
    "em": EMAssignment,
    "end_to_end": EndToEndAssignment,
    "episodes": EpisodeAssignment,
    "fixed": FixedAssignment,
    "random": RandomAssignment,
    "clustering": ClusteringAssignment,
}

#: Name of the one that models have unless they are told otherwise
DEFAULT_ASSIGNMENT = "episodes"

#: Arguments of assignments that the model gives them
NOT_KEYWORDS = ("n_agents", "k", "seed")

__all__ = [
    "ASSIGNMENTS",
    "DEFAULT_ASSIGNMENT",
    "Assignment",
    "ClusteringAssignment",
    "EMAssignment",
    "EndToEndAssignment",
    "EpisodeAssignment",
    "FixedAssignment",
    "HardAssignment",
    "RandomAssignment",
    "assignment_class",
    "check_assignment_keywords",
    "make_assignment",
]


def assignment_class(method: str | type[Assignment]) -> type[Assignment]:
    """
    :param method: a name in :data:`ASSIGNMENTS`, a subclass of :class:`Assignment`, or ``module:Class`` for one that can be
        imported, as gymnasium has it for environments
    :raises ValueError: if it is none of them
    """
    known: Any = method
    if isinstance(method, str) and ":" in method:
        module, _, name = method.partition(":")
        try:
            known = getattr(importlib.import_module(module), name)
        except Exception as error:  # modules of others may raise anything
            raise ValueError(f"assignment={method!r} cannot be imported: {type(error).__name__}: {error}") from error
    elif isinstance(method, str) and method in ASSIGNMENTS:
        return ASSIGNMENTS[method]
    if isinstance(known, type) and issubclass(known, Assignment):
        return known
    alike = most_alike(method, ASSIGNMENTS) if isinstance(method, str) else None
    meant = f", did you mean {alike!r}?" if alike else ""
    raise ValueError(
        f"assignment={shown(method)} is unknown: choose one of {sorted(ASSIGNMENTS)} or a subclass of Assignment{meant}"
    )


def check_assignment_keywords(method: str | type[Assignment], kwargs: dict[str, Any] | None) -> None:
    """
    :param method: see :func:`assignment_class`
    :param kwargs: ``assignment_kwargs`` of a model
    :raises ValueError: if the method or the name of an argument is unknown
    """
    cls = assignment_class(method)
    check_keywords("assignment_kwargs", kwargs, keyword_names(cls, NOT_KEYWORDS), cls.__name__)


def make_assignment(
    method: str | type[Assignment], n_agents: int, k: int, seed: int | None = None, kwargs: dict[str, Any] | None = None
) -> Assignment:
    """
    :param method: see :func:`assignment_class`
    :param n_agents: number of agents
    :param k: number of representatives
    :param seed: seed of what the method draws at random
    :param kwargs: the method's own arguments
    :raises ValueError: if the method or one of its arguments is unknown or wrong
    """
    check_assignment_keywords(method, kwargs)
    try:
        return assignment_class(method)(n_agents, k, seed=seed, **(kwargs or {}))
    except ValueError as error:
        raise ValueError(f"assignment_kwargs: {error}") from error
