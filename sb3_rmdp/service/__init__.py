"""Service of users who were not in training: which representative is best for them, and how sure that is, without training."""

from sb3_rmdp.service.assign import assign
from sb3_rmdp.service.episodes import EvaluationEpisodes, Origin, Trajectories, Transitions
from sb3_rmdp.service.judging import NewUsers
from sb3_rmdp.service.recording import record_episodes
from sb3_rmdp.service.scores import Scores

__all__ = [
    "EvaluationEpisodes",
    "NewUsers",
    "Origin",
    "Scores",
    "Trajectories",
    "Transitions",
    "assign",
    "record_episodes",
]
