"""The published form as a trainer of nnU-Net's."""

import math
import os

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.optim import Optimizer

from nnunetv2_rmr.inference.trust import reading_data_only
from nnunetv2_rmr.networks.fusing import unwrapped
from nnunetv2_rmr.networks.planned import planned_network
from nnunetv2_rmr.published.losses import TERMS, PublishedLoss
from nnunetv2_rmr.published.network import FEATURES, PublishedRMRNet
from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.nnUNetTrainerRMR import meet_model, nnUNetTrainerRMR

STAGE1 = 200 / 350  # of the epochs: 200, then 150
WARMUP = 50 / 150  # of the second stage's
LR = 1e-4  # of both
STAGE1_WEIGHT_DECAY, STAGE2_WEIGHT_DECAY = 5e-5, 1e-5


class WarmupCosineLR:
    """Linear rise over `warmup_epochs`, then half a cosine down towards zero, over the `epochs` from `first_epoch` on.

    It has the two methods that nnU-Net calls on a scheduler. The rate depends on the epoch alone, so there is no state
    to save and a resumed training goes on where it was. The first and the last epoch have small rates, but none is 0.
    """

    def __init__(self, optimizer: Optimizer, lr: float, first_epoch: int, epochs: int, warmup_epochs: int = 0):
        self.optimizer = optimizer
        self.lr, self.first_epoch, self.epochs, self.warmup_epochs = lr, first_epoch, epochs, warmup_epochs
        self.step(first_epoch)

    def at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted like the trainer's from the beginning of the training."""
        done = epoch - self.first_epoch
        if done < self.warmup_epochs:
            return self.lr * (done + 1) / (self.warmup_epochs + 1)
        progress = (done - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return self.lr * 0.5 * (1 + math.cos(math.pi * progress))

    def step(self, current_epoch: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.at(current_epoch)

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


class nnUNetTrainerRMR_paper(nnUNetTrainerRMR):
    """The published network, stages, losses, weights, optimisers, schedules and degradations:

    1. encoders and fusion decoder learn to reconstruct every modality, clean, from degraded input (Adam);
    2. they stay as they are; fusion module and segmentation network learn both tasks, on clean input (AdamW).

    The values are those of the paper and, where it says nothing (length of stage 1, weight decay of stage 2, total
    variation of squares, no degradations in stage 2), of the authors' code (github.com/HaoZhang1018/RMR-Fusion).
    The rest is nnU-Net's and differs from the paper: the segmentation network of the plans instead of SwinUNETR, Dice
    and cross-entropy instead of Dice, z-scores, augmentation, patch and batch size, gradient clipping. Of our settings
    those of the default trainer's loss mean nothing here.
    """

    settings = RMRSettings(
        p_clean=0.0,  # the four kinds of input were equally frequent
        degradation_options={
            "noise": {"sigma": [0, 0.1], "of_range": True, "p_rician": 0},
            "blur": {"sigma": [0.1, 3.0], "p_thick_slices": 0},
            # 8 boxes with an eighth of the patch's edges; of patches with 128 voxels 12 to 16
            "fourier": {"share": 8 / 8**3, "strength": 1, "edge": [12, 16], "amplitude_sigma": 0.5},
        },
    )
    loss_terms = TERMS
    clean_targets = False
    learns_from_unlabelled = False  # published for labelled scans

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict,
                 device: torch.device = torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr, self.weight_decay = LR, STAGE2_WEIGHT_DECAY  # for nnU-Net's log

    @property
    def stage1_epochs(self) -> int:
        """With two epochs or more both stages have at least one."""
        return min(max(1, round(STAGE1 * self.num_epochs)), self.num_epochs - 1)

    def stage_of(self, epoch: int) -> int:
        return 1 if epoch < self.stage1_epochs else 2

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels: int,
                                   num_output_channels: int, enable_deep_supervision: bool = True):
        meet_model(plans_manager.plans)
        modalities = len(configuration_manager.normalization_schemes)
        segmentation = planned_network(configuration_manager, FEATURES + num_input_channels - modalities,
                                       num_output_channels, enable_deep_supervision)
        return PublishedRMRNet(segmentation, modalities, num_input_channels, len(configuration_manager.patch_size))

    def _build_loss(self):
        return PublishedLoss(nnUNetTrainer._build_loss(self), self.reference)

    def _do_i_compile(self):
        # windows of every kind make graphs of thousands of operations, for which the compiler takes longer than it
        # saves: only if the user asks for it
        return "nnUNet_compile" in os.environ and super()._do_i_compile()

    def configure_optimizers(self):
        # of what the stage trains
        network = unwrapped(self.network)
        network.stage.fill_(self.stage)
        network.requires_grad_(self.stage == 2)
        autoencoder = [*network.encoders.parameters(), *network.fusion_decoder.parameters()]
        for parameter in autoencoder:
            parameter.requires_grad_(self.stage == 1)
        if self.stage == 1:
            optimizer = torch.optim.Adam(autoencoder, LR, weight_decay=STAGE1_WEIGHT_DECAY)
            return optimizer, WarmupCosineLR(optimizer, LR, 0, self.stage1_epochs)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, LR, weight_decay=STAGE2_WEIGHT_DECAY)
        epochs = self.num_epochs - self.stage1_epochs
        return optimizer, WarmupCosineLR(optimizer, LR, self.stage1_epochs, epochs,
                                         min(round(WARMUP * epochs), epochs - 1))

    def initialize(self):
        # the number of epochs is known only now: variants and tests change it after __init__
        self.stage = self.stage_of(self.current_epoch)
        super().initialize()

    def on_train_epoch_start(self):
        # a stage begins
        if self.stage_of(self.current_epoch) != self.stage:
            self._enter_stage(self.stage_of(self.current_epoch))
        super().on_train_epoch_start()
        self.print_to_log_file(f"Stage {self.stage}: "
                               + ("autoencoder, no segmentation yet" if self.stage == 1 else "fusion and segmentation"))

    def _enter_stage(self, stage: int) -> None:
        self.stage = stage
        self.network.zero_grad()  # the next optimiser does not know what it freezes, and would leave its last gradients
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        if isinstance(self.network, DDP):  # it synchronises only what was trainable when it was wrapped
            self.network = DDP(self.network.module, device_ids=self.network.device_ids)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        # stage and optimiser have to be those of the saved epoch before nnU-Net loads the optimiser's state
        checkpoint = filename_or_checkpoint
        if isinstance(checkpoint, str):
            with reading_data_only():
                checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=False)
        if not self.was_initialized:
            self.initialize()
        stage = self.stage_of(checkpoint["current_epoch"] - 1)
        if stage != self.stage:
            self._enter_stage(stage)
        super().load_checkpoint(filename_or_checkpoint)
