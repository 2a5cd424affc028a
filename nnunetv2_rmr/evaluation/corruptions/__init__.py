"""Corruptions of raw scans for testing, severities 1 to 5: what they are, docs/corruptions.md says with numbers."""

from nnunetv2_rmr.evaluation.corruptions.base import Corruption, body_mask
from nnunetv2_rmr.evaluation.corruptions.case import corrupt_case
from nnunetv2_rmr.evaluation.corruptions.difference import image_difference
from nnunetv2_rmr.evaluation.corruptions.registry import CORRUPTIONS, SEVERITIES
from nnunetv2_rmr.evaluation.corruptions.torchio_transforms import TorchIOMissingError

__all__ = [
    "CORRUPTIONS",
    "SEVERITIES",
    "Corruption",
    "TorchIOMissingError",
    "body_mask",
    "corrupt_case",
    "image_difference",
]
