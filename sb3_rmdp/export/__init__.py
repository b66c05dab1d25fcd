"""
Export: representatives as files that other programs run, without sb3_rmdp, and a manifest of who is served by which.

ONNX needs ``pip install "sb3_rmdp[export]"``; zip files for SB3's PPO need nothing more.
"""

from sb3_rmdp.export.loading import Exported, ExportedRepresentative, load_exported
from sb3_rmdp.export.manifest import verify
from sb3_rmdp.export.writing import export

__all__ = ["Exported", "ExportedRepresentative", "export", "load_exported", "verify"]
