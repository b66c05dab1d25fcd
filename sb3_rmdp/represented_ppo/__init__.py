"""Proximal policy optimisation for represented MDPs."""

from sb3_rmdp.represented_ppo.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_rmdp.represented_ppo.represented_ppo import RepresentedPPO

__all__ = ["CnnPolicy", "MlpPolicy", "MultiInputPolicy", "RepresentedPPO"]
