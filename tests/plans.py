"""A plans dictionary as nnU-Net's planner writes it, for tests that need no planning."""

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_rmr.settings import RMRSettings

CHANNELS = ("T1", "FLAIR")
DATASET_JSON = {"channel_names": {str(i): c for i, c in enumerate(CHANNELS)}, "file_ending": ".nii.gz",
                "labels": {"background": 0, "lesion": 1}, "numTraining": 1}


def make_plans(*, patch_size=(16, 16, 16), spacing=(1.0, 1.0, 1.0), transpose=(0, 1, 2), mask_norm: bool = True,
               reader: str = "SimpleITKIO", scheme: str = "ZScoreNormalization",
               settings: RMRSettings | None = RMRSettings()) -> PlansManager:  # noqa: B008 (frozen)
    dim = len(patch_size)
    stages = 2
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    plans = {
        "dataset_name": "Dataset999_Test", "plans_name": "nnUNetPlans", "image_reader_writer": reader,
        "transpose_forward": list(transpose), "transpose_backward": [list(transpose).index(i) for i in range(3)],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(i): {"mean": 100.0, "std": 50.0, "percentile_00_5": 5.0, "percentile_99_5": 195.0}
            for i in range(len(CHANNELS))},
        "configurations": {"test": {
            "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
            "patch_size": list(patch_size), "spacing": list(spacing),
            "normalization_schemes": [scheme] * len(CHANNELS), "use_mask_for_norm": [mask_norm] * len(CHANNELS),
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": resampling, "resampling_fn_probabilities_kwargs": resampling | {"order": 1},
            "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
            "batch_dice": False,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": stages, "features_per_stage": [4, 6], "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                    "kernel_sizes": [[3] * dim] * stages, "strides": [[1] * dim, [2] * dim],
                    "n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1], "conv_bias": True,
                    "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                    "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}},
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"]},
        }},
    }
    return PlansManager(settings.into_plans(plans) if settings is not None else plans)
