"""
Environments of represented MDPs. Importing this module registers the ids ``rmdp/...`` in gymnasium.

Worker processes that are not forked (``SubprocVecEnv``) have to import it as well: give the id as
``"sb3_rmdp.envs:rmdp/HopperVelocity-v0"`` there.
"""

from gymnasium.envs.registration import register, registry

from sb3_rmdp.envs.checker import check_represented_env
from sb3_rmdp.envs.contract import REWARD_FEATURES, REWARD_VECTOR, WelfareBounded, fingerprint, scalar_reward
from sb3_rmdp.envs.factored_reward import FactoredReward
from sb3_rmdp.envs.population import uniform_population
from sb3_rmdp.envs.resource_gathering import STEP_LIMIT_OF_TASK, ResourceGatheringEnv
from sb3_rmdp.envs.reward_weights import RewardWeights
from sb3_rmdp.envs.vector_reward import VectorReward
from sb3_rmdp.envs.velocity import (
    EPISODE_STEPS,
    TIME_LIMIT_TOLD,
    AntVelocityEnv,
    HalfCheetahVelocityEnv,
    HopperVelocityEnv,
    Walker2dVelocityEnv,
    velocity_features,
    velocity_rewards,
)

__all__ = [
    "ENV_IDS",
    "REWARD_FEATURES",
    "REWARD_VECTOR",
    "AntVelocityEnv",
    "FactoredReward",
    "HalfCheetahVelocityEnv",
    "HopperVelocityEnv",
    "ResourceGatheringEnv",
    "RewardWeights",
    "VectorReward",
    "Walker2dVelocityEnv",
    "WelfareBounded",
    "check_represented_env",
    "fingerprint",
    "register_envs",
    "scalar_reward",
    "uniform_population",
    "velocity_features",
    "velocity_rewards",
]

VELOCITY_TASKS = ("HalfCheetahVelocity", "AntVelocity", "HopperVelocity", "Walker2dVelocity")

#: Every id that this package registers.
ENV_IDS = ("rmdp/ResourceGathering-v0", *(f"rmdp/{name}-v0" for name in VELOCITY_TASKS))


def register_envs() -> None:
    """Register :data:`ENV_IDS` in gymnasium; ids that are there already stay as they are."""
    if "rmdp/ResourceGathering-v0" not in registry:
        # Without gymnasium's max_episode_steps: the limit of 40 steps belongs to the task, see step_limit_of_task.
        register(
            id="rmdp/ResourceGathering-v0",
            entry_point="sb3_rmdp.envs.resource_gathering:ResourceGatheringEnv",
            additional_wrappers=STEP_LIMIT_OF_TASK,
        )
    for name in VELOCITY_TASKS:
        if f"rmdp/{name}-v0" not in registry:
            register(
                id=f"rmdp/{name}-v0",
                entry_point=f"sb3_rmdp.envs.velocity:{name}Env",
                max_episode_steps=EPISODE_STEPS,
                additional_wrappers=TIME_LIMIT_TOLD,
            )


register_envs()
