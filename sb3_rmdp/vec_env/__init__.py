"""Vectorised environments for represented algorithms."""

from sb3_rmdp.vec_env.envpool import EnvPoolVecEnv
from sb3_rmdp.vec_env.factory import fastest_vec_env, make_represented_vec_env, represented_vec_env
from sb3_rmdp.vec_env.infos import BatchInfos
from sb3_rmdp.vec_env.resource_gathering import ResourceGatheringVecEnv
from sb3_rmdp.vec_env.velocity import VelocityVecEnv
from sb3_rmdp.vec_env.welfare import RepresentedActions, WelfareVecEnv, insert_welfare

__all__ = [
    "BatchInfos",
    "EnvPoolVecEnv",
    "RepresentedActions",
    "ResourceGatheringVecEnv",
    "VelocityVecEnv",
    "WelfareVecEnv",
    "fastest_vec_env",
    "insert_welfare",
    "make_represented_vec_env",
    "represented_vec_env",
]
