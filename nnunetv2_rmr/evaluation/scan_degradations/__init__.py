"""Degradations of raw scans for testing, severities 1 to 5: what they are, docs/corruptions.md says with numbers."""

from nnunetv2_rmr.evaluation.scan_degradations.base import body_mask
from nnunetv2_rmr.evaluation.scan_degradations.degrade_scans import (
    SEVERITIES,
    degrade_scans,
    image_difference,
    try_out,
)
from nnunetv2_rmr.evaluation.scan_degradations.kinds import SCAN_DEGRADATIONS
from nnunetv2_rmr.evaluation.scan_degradations.torchio_transforms import TorchIOMissingError

__all__ = ["SCAN_DEGRADATIONS", "SEVERITIES", "TorchIOMissingError", "body_mask", "degrade_scans", "image_difference",
           "try_out"]
