"""
Represented MDPs for Stable-Baselines3: many users, few policies.

Importing this package registers the environments ``rmdp/...`` in gymnasium.
"""

from pathlib import Path

from sb3_rmdp import envs
from sb3_rmdp.common.evaluation import WelfareEvaluation, evaluate_welfare
from sb3_rmdp.represented_ppo import RepresentedPPO

__version__ = Path(__file__).with_name("version.txt").read_text(encoding="utf-8").strip()

__all__ = ["RepresentedPPO", "WelfareEvaluation", "__version__", "envs", "evaluate_welfare"]
