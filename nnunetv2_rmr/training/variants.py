"""Shorter trainings, named like nnU-Net's nnUNetTrainer_5epochs and so on."""

from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


class nnUNetTrainerRMR_5epochs(nnUNetTrainerRMR):
    epochs = 5


class nnUNetTrainerRMR_20epochs(nnUNetTrainerRMR):
    epochs = 20


class nnUNetTrainerRMR_50epochs(nnUNetTrainerRMR):
    epochs = 50


class nnUNetTrainerRMR_100epochs(nnUNetTrainerRMR):
    epochs = 100


class nnUNetTrainerRMR_250epochs(nnUNetTrainerRMR):
    epochs = 250
