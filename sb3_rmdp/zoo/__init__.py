"""
RL Zoo for represented MDPs: its scripts as they are released, which know ``--algo rppo`` here.

    python -m sb3_rmdp.zoo train --algo rppo --env rmdp/ResourceGathering-v0

Importing this package does not need RL Zoo (``pip install "sb3_rmdp[zoo]"``); running a script does.
"""

from sb3_rmdp.zoo.scripts import SCRIPTS, run

__all__ = ["SCRIPTS", "run"]
