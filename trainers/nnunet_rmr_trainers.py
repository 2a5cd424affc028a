# ruff: noqa: F401
# nnU-Net imports every module of the folders in nnUNet_extTrainer and then forgets what it imported from there, so the
# classes must live in an installed package (else they can not be pickled) and only be named here.
from nnunetv2_rmr.published.nnUNetTrainerRMR_paper import nnUNetTrainerRMR_paper
from nnunetv2_rmr.training.degradations_only import nnUNetTrainer_RMRDegradations
from nnunetv2_rmr.training.fusion_only import nnUNetTrainerRMR_fusionOnly
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR
from nnunetv2_rmr.training.variants import (
    nnUNetTrainerRMR_5epochs,
    nnUNetTrainerRMR_20epochs,
    nnUNetTrainerRMR_50epochs,
    nnUNetTrainerRMR_100epochs,
    nnUNetTrainerRMR_250epochs,
    nnUNetTrainerRMRBenchmark_5epochs,
    nnUNetTrainerRMRBenchmark_5epochs_noDataLoading,
)
