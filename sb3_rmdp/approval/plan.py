"""What a report will evaluate, settled before anything takes time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_rmdp.approval.episodes import ObservationSpread
from sb3_rmdp.approval.stress import StressCase, Wrapper, stress_cases
from sb3_rmdp.vec_env.episodes import EpisodeLengths

MAX_SEED = 2**32


@dataclass(frozen=True)
class Plan:
    """
    What will be evaluated; see :func:`make_plan`.

    :param n_eval_episodes: episodes per representative, seed and condition
    :param seeds: of the evaluations
    :param deterministic: take the likeliest actions
    :param spread: gathers observations; ``None`` if these are no boxes
    :param stress: conditions
    :param own_policy_utilities: what the user knows of, (n_agents,)
    :param max_episode_steps: steps that an episode may take
    """

    n_eval_episodes: int
    seeds: tuple[int, ...]
    deterministic: bool
    spread: ObservationSpread | None
    stress: tuple[StressCase, ...]
    own_policy_utilities: np.ndarray | None
    max_episode_steps: int | None = None

    def n_episodes(self, k: int) -> int:
        """Number of all episodes of k representatives."""
        return k * self.n_eval_episodes * (len(self.seeds) + sum(case.apply is not None for case in self.stress))


def make_plan(
    env: VecEnv,
    n_agents: int,
    n_eval_episodes: int = 20,
    seeds: int | Sequence[int] = 3,
    deterministic: bool = True,
    stress: bool | Mapping[str, Wrapper] = True,
    own_policy_utilities: Sequence[float] | np.ndarray | None = None,
    max_episode_steps: int | None = None,
) -> Plan:
    """
    Look at all arguments before anything takes time; they are those of :func:`sb3_rmdp.approval.write_report`.

    :return: the plan
    :raises ValueError: if an argument is out of its range, or a stress case of the user's cannot be had
    """
    if n_eval_episodes < 1:
        raise ValueError(f"n_eval_episodes={n_eval_episodes}: every representative needs at least 1 episode")
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(seed) for seed in seeds)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= seed < MAX_SEED for seed in chosen):
        raise ValueError(f"seeds={seeds!r}: give how many, at least 1, or different ones from 0 to 2**32 - 1")
    known = None if own_policy_utilities is None else np.asarray(own_policy_utilities, dtype=np.float64)
    if known is not None and known.shape != (n_agents,):
        raise ValueError(
            f"own_policy_utilities have shape {known.shape}: give one utility per agent, ({n_agents},), nan where unknown"
        )
    EpisodeLengths(env, max_episode_steps)  # complains of a number that is none
    spread = ObservationSpread(env.observation_space) if isinstance(env.observation_space, spaces.Box) else None
    own = stress if isinstance(stress, Mapping) else {}
    cases = stress_cases(env, spread, own) if stress or own else []
    return Plan(n_eval_episodes, chosen, deterministic, spread, tuple(cases), known, max_episode_steps)
