"""RMR as published (Zhang et al., AAAI 2024, doi:10.1609/aaai.v38i7.28536), to compare with."""

from nnunetv2_rmr.settings import RMRSettings
from nnunetv2_rmr.training.nnUNetTrainerRMR import nnUNetTrainerRMR


class nnUNetTrainerRMR_paper(nnUNetTrainerRMR):
    """The published network, stages, losses, weights, optimisers, schedules and degradations.

    The values are those of the paper and, where it says nothing (length of stage 1, weight decay of stage 2, total
    variation of squares, no degradations in stage 2), of the authors' code (github.com/HaoZhang1018/RMR-Fusion).
    The rest is nnU-Net's and differs from the paper: the segmentation network of the plans instead of SwinUNETR, Dice
    and cross-entropy instead of Dice, z-scores, augmentation, patch and batch size, gradient clipping. On z-scores the
    losses on images weigh more than on intensities up to 1, for which the weights were chosen.
    """

    settings = RMRSettings(
        encoder="swin",
        features=16,
        fusion_growth=16,
        fusion_layers=5,
        fusion_collect=False,
        decoder_hidden=8,
        decoder_layers=4,
        convolutions="plain",
        intensity_target="reference",

        stage1_fraction=200 / 350,  # 200 epochs, then 150
        stage1_lr=1e-4,
        stage1_weight_decay=5e-5,
        stage1_schedule="cosine",
        mse_weight=40.0,
        tv_weight=20.0,
        tv_norm="l2",
        ssim_weight=1.0,
        feature_weight=1.0,
        # Undivided, features that shrink count as progress. It is what was published, and here the image loss of the
        # shared decoder and the weight decay on what would have to grow in turn hold against it.
        feature_loss_relative=False,

        freeze_autoencoder=True,
        stage2_optimizer="adamw",
        stage2_lr=1e-4,
        stage2_weight_decay=1e-5,
        stage2_schedule="cosine",
        stage2_warmup_fraction=50 / 150,
        front_clip=None,  # beside nnU-Net's, of the whole network; none is published
        stage2_degraded=False,
        segmentation_weight=10.0,
        intensity_weight=12.0,
        intensity_norm="l1",
        gradient_weight=32.0,  # 1 with the published 3D Sobel kernels, which are 32 times as large as ours
        refinement_weight=0.0,

        p_clean=0.0,  # the four kinds of input were equally frequent
        degradation_probabilities={"none": 0.25, "noise": 0.25, "blur": 0.25, "fourier": 0.25},
        degradation_options={
            "noise": {"sigma": [0, 0.1], "of_range": True, "p_rician": 0},
            "blur": {"sigma": [0.1, 3.0], "p_thick_slices": 0},
            # 8 boxes with an eighth of the patch's edges; of patches with 128 voxels 12 to 16
            "fourier": {"share": 8 / 8**3, "strength": 1, "edge": [12, 16], "amplitude_sigma": 0.5},
        },
    )
