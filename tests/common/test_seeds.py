"""Seeds of evaluations: apart from each other, and apart from those of trainings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_rmdp.budget import budget_curve
from sb3_rmdp.common.seeds import check_training_seed, environment_seed, seed_evaluation
from tests.probes import KnownAssignment


class Seeds(KnownAssignment):
    """Remembers what it was seeded with."""

    seed: int | None = None

    def reset(self, *, seed: int | None = None, **kwargs: Any) -> tuple[Any, dict]:
        self.seed = seed if seed is not None else self.seed
        return super().reset(seed=seed, **kwargs)


@pytest.mark.parametrize("n_envs", [1, 3, 16])
def test_no_copy_has_a_seed_of_another_evaluation_or_of_a_training(n_envs: int) -> None:
    env = DummyVecEnv([Seeds] * n_envs)
    seen: list[int] = []
    for seed in (0, 1, 2, 3, 7, 100, 10_000, 2**31, 2**32 - 1):
        seed_evaluation(env, seed)
        env.reset()
        seen += env.get_attr("seed")
    assert len(set(seen)) == 9 * n_envs
    # Trainings have seeds of people, and so have evaluations of sweeps and budgets; EnvPool takes no more than 2**31
    assert min(seen) >= 2**30 and max(seen) < 2**31


def test_many_evaluations_of_many_copies_have_seeds_of_their_own() -> None:
    first = [environment_seed(seed) for seed in [*range(2000), *range(1_000_003, 1_000_103), 2**18 - 1, 2**31, 2**32 - 1]]
    assert np.diff(np.sort(first)).min() >= 2**12


def test_a_training_on_the_start_states_of_its_evaluation_is_refused() -> None:
    for seed, n_envs, n_eval_envs in ((0, 9999, 1), (9999, 1, 1), (10_001, 5, 1), (10_003, 1, 3), (2**31, 9, 9)):
        check_training_seed(seed, n_envs, n_eval_envs)
    for seed, n_envs, n_eval_envs in ((10_000, 1, 1), (9998, 3, 1), (10_002, 1, 3)):
        with pytest.raises(ValueError, match=f"seed {seed} gives {n_envs} environments .* choose another seed"):
            check_training_seed(seed, n_envs, n_eval_envs)
    with pytest.raises(ValueError, match="seed 9999 gives 2 environments"):
        budget_curve("rmdp/ResourceGathering-v0", (1, 2), 16, seeds=[9999])


def test_the_same_seed_gives_the_same_evaluation() -> None:
    env, drawn = DummyVecEnv([Seeds] * 2), []
    for _ in range(2):
        seed_evaluation(env, 5)
        env.reset()
        drawn.append((th.rand(3).tolist(), np.random.random(), *env.get_attr("seed")))
    assert drawn[0] == drawn[1]
