"""Degradations of raw scans for testing, severities 1 to 5: what they are, docs/corruptions.md says with numbers."""

from nnunetv2_rmr.evaluation.scan_degradations.base import nonzero_body
from nnunetv2_rmr.evaluation.scan_degradations.degrade_scans import (
    SEVERITIES,
    degrade_scans,
    image_difference,
    try_out,
)
from nnunetv2_rmr.evaluation.scan_degradations.kinds import SCAN_DEGRADATIONS

__all__ = ["SCAN_DEGRADATIONS", "SEVERITIES", "degrade_scans", "image_difference", "nonzero_body", "try_out"]
