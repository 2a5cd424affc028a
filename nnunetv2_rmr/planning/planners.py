"""nnU-Net's planners, with the memory that RMR's training really takes in the GPU memory target: what the backward pass
needs, found by running network and losses without data."""

import copy
from collections.abc import Callable, Sequence
from os.path import isfile, join

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners as resenc
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.settings import PLANS_KEY, RMRSettings, channel_names

GIB = 2**30
# Whatever the batch: the CUDA context, .67 GiB on an H200, libraries' workspaces, weights with their gradients and
# momentum. From 15 trainings of U-Nets on a GPU (benchmarks/README.md).
FIXED_GIB = 1.25
# At the worst moment of a step there is more than what the backward pass has to keep: gradients of feature maps, and
# the allocator's gaps. Factor of what is kept, from the same trainings.
PEAK = 1.3


def training_bytes(network: RMRNet, patch_size: Sequence[int]) -> int:
    """Bytes of GPU memory that every sample of a batch takes in training: the segmentation network, the head, and both
    losses' own. Found by running them on tensors without data, in float16 (losses in float32) as on a GPU.
    """
    network = copy.deepcopy(network).to("meta").half().requires_grad_(True)
    head = network.image_decoder["seg_layers"]
    head.gate.float(), head.last.float()
    channels = network.num_modalities + network.input_channels
    x = torch.empty(1, channels, *patch_size, device="meta", dtype=torch.float16)

    def step():
        outputs = network(x)
        logits = outputs.logits if isinstance(outputs.logits, (list, tuple)) else [outputs.logits]
        return [of_scale.float().softmax(1) for of_scale in logits], (outputs.restored - outputs.clean).square()

    return int(PEAK * kept_bytes(step, list(network.parameters())))


def kept_bytes(compute: Callable[[], object], parameters: list[torch.Tensor]) -> int:
    """Bytes of all tensors that autograd keeps for the backward pass of `compute()`, each storage once.

    Whatever `compute` uses should lie on the meta device: then nothing is computed and shapes of any size take
    milliseconds. `parameters` are not counted.
    """
    kept = {}
    own = {p.untyped_storage()._cdata for p in parameters}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # the storage itself, so that its address is not given to another one
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = compute()
    total = sum(storage.nbytes() for storage in kept.values())
    del result
    return total


class PlansRMRNet:
    """Mixin for a planner of nnU-Net's: patch and batch size adapt until RMR's training fits into the memory target.

    The planned network is the planner's own one, so the plans serve every trainer. A target of 8 GB means 8 GiB of GPU
    memory in use, as nvidia-smi shows it; the reference values that nnU-Net compares the network with say how many
    bytes samples may have. If the plans file is there already, the RMR settings in it ("rmr") are kept.

    Raises NotImplementedError for a data set with one channel, ValueError for a target that is too small whatever the
    patch, or for something under "rmr" that is no setting.
    """

    own_plans_name: str

    def __init__(self, dataset_name_or_id: str | int, *, plans_name: str | None = None, **kwargs):
        super().__init__(dataset_name_or_id, plans_name=plans_name or self.own_plans_name, **kwargs)
        self.num_modalities = len(channel_names(self.dataset_json))
        if self.num_modalities < 2:
            raise NotImplementedError(f"{type(self).__name__} plans for two or more modalities, but the data set "
                                      f"{self.dataset_name} has one channel only: use nnU-Net's planners")
        file = join(nnUNet_preprocessed, self.dataset_name, self.plans_identifier + ".json")
        self.rmr_in_plans = load_json(file).get(PLANS_KEY) if isfile(file) else None
        RMRSettings.from_plans({PLANS_KEY: self.rmr_in_plans}, RMRSettings())  # refuses what is none
        if self.UNet_vram_target_GB <= FIXED_GIB:
            raise ValueError(f"a GPU memory target of {self.UNet_vram_target_GB} GB is too small: {FIXED_GIB} GB are "
                             "taken before the first sample")
        self.bytes_for_samples = (self.UNet_vram_target_GB - FIXED_GIB) * GIB
        self.UNet_reference_val_corresp_GB = self.UNet_vram_target_GB
        self.UNet_reference_val_2d = self.bytes_for_samples / self.UNet_reference_val_corresp_bs_2d
        self.UNet_reference_val_3d = self.bytes_for_samples / self.UNet_reference_val_corresp_bs_3d

    def static_estimate_VRAM_usage(self, patch_size: Sequence[int], input_channels: int, output_channels: int,
                                   arch_class_name: str, arch_kwargs: dict, arch_kwargs_req_import: Sequence[str]):
        # not static as in nnU-Net, which calls it on the planner: the estimate needs the number of modalities
        with torch.device("meta"):  # nobody needs the weights
            network = get_network_from_plans(arch_class_name, arch_kwargs, arch_kwargs_req_import, input_channels,
                                             output_channels, allow_init=False)
            network = RMRNet(network, self.num_modalities, input_channels, patch_size)
        return training_bytes(network, patch_size)

    def get_plans_for_configuration(self, *args, **kwargs) -> dict:
        plan = super().get_plans_for_configuration(*args, **kwargs)
        architecture = plan["architecture"]
        of_sample = self.static_estimate_VRAM_usage(
            plan["patch_size"], self.num_modalities, len(self.dataset_json["labels"]),
            architecture["network_class_name"], architecture["arch_kwargs"], architecture["_kw_requires_import"])
        # nnU-Net rounds the number of samples that fit, so up to half of one would not
        fitting = max(self.UNet_min_batch_size, int(self.bytes_for_samples // of_sample))
        plan["batch_size"] = min(plan["batch_size"], fitting)
        return plan

    def generate_data_identifier(self, configuration_name: str) -> str:
        # as nnU-Net's ResEnc planners do it: the same data as for nnUNetPlans are not preprocessed twice. 3d_lowres
        # depends on the patch size
        same = self.overwrite_target_spacing is None and self.preprocessor_name == "DefaultPreprocessor"
        if same and configuration_name in ("2d", "3d_fullres"):
            return f"nnUNetPlans_{configuration_name}"
        return f"{self.plans_identifier}_{configuration_name}"

    def save_plans(self, plans: dict) -> None:
        if self.rmr_in_plans is not None:
            plans[PLANS_KEY] = self.rmr_in_plans
        super().save_plans(plans)


class RMRPlanner(PlansRMRNet, ExperimentPlanner):
    """nnU-Net's default planner for RMR."""

    own_plans_name = "nnUNetRMRPlans"


class RMRPlannerResEncM(PlansRMRNet, resenc.nnUNetPlannerResEncM):
    """nnU-Net's ResEnc M planner for RMR."""

    own_plans_name = "nnUNetRMRResEncUNetMPlans"


class RMRPlannerResEncL(PlansRMRNet, resenc.nnUNetPlannerResEncL):
    """nnU-Net's ResEnc L planner for RMR."""

    own_plans_name = "nnUNetRMRResEncUNetLPlans"


class RMRPlannerResEncXL(PlansRMRNet, resenc.nnUNetPlannerResEncXL):
    """nnU-Net's ResEnc XL planner for RMR."""

    own_plans_name = "nnUNetRMRResEncUNetXLPlans"


PLANNERS = (RMRPlanner, RMRPlannerResEncM, RMRPlannerResEncL, RMRPlannerResEncXL)


def let_nnunet_find_planners() -> None:
    """Name our planners in the first module that nnU-Net's search for planner classes looks into.

    nnU-Net searches inside its own package only (nnUNet_extTrainer is for trainers), so this works in this process:
    its own commands, started by a user, can not know them.
    """
    from nnunetv2.experiment_planning import plan_and_preprocess_api

    for planner in PLANNERS:
        setattr(plan_and_preprocess_api, planner.__name__, planner)
