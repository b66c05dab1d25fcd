"""Vectorised environments for represented algorithms."""

from sb3_rmdp.vec_env.factory import represented_vec_env
from sb3_rmdp.vec_env.welfare import RepresentedActions, WelfareVecEnv, insert_welfare

__all__ = ["RepresentedActions", "WelfareVecEnv", "insert_welfare", "represented_vec_env"]
