"""Vectorised environments for represented algorithms."""

from sb3_rmdp.vec_env.factory import represented_vec_env

__all__ = ["represented_vec_env"]
