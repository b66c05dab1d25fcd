"""Reports for those who approve policies: one HTML file per model, with what to know before it goes into service."""

from sb3_rmdp.approval.findings import Findings
from sb3_rmdp.approval.report import write_report

__all__ = ["Findings", "write_report"]
