"""Algorithms of this package in RL Zoo's registries. Importing this module needs RL Zoo."""

from __future__ import annotations

import rl_zoo3.exp_manager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_rmdp.common.on_policy_algorithm import RepresentedOnPolicyAlgorithm
from sb3_rmdp.represented_ppo import RepresentedPPO
from sb3_rmdp.zoo.experiment import RepresentedExperimentManager
from sb3_rmdp.zoo.tuning import convert_represented_params, sample_represented_params

#: Our algorithms, under the names that ``--algo`` takes
ALGORITHMS: dict[str, type[RepresentedOnPolicyAlgorithm]] = {"rppo": RepresentedPPO}


def register() -> None:
    """
    Add our algorithms, their search space and our experiment manager to RL Zoo.

    RL Zoo has no hook for that, but all its scripts share the registries, which are dictionaries, and take the experiment
    manager from the module that defines it.
    """
    for name, algorithm in ALGORITHMS.items():
        ALGOS[name] = algorithm
        HYPERPARAMS_SAMPLER[name] = sample_represented_params
        HYPERPARAMS_CONVERTER[name] = convert_represented_params
    rl_zoo3.exp_manager.ExperimentManager = RepresentedExperimentManager  # type: ignore[misc]
