"""Exact optima and upper bounds of the benchmark tasks, independent of any learning code."""

from sb3_rmdp.oracles.resource_gathering import OptimalTours, resource_gathering_optimum
from sb3_rmdp.oracles.velocity import velocity_welfare_bound

__all__ = ["OptimalTours", "resource_gathering_optimum", "velocity_welfare_bound"]
