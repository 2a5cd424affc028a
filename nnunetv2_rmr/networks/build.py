"""RMRNet from plans: around the segmentation network that they name, or as RMR plans name it themselves."""

import pydoc
from inspect import signature

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_rmr.losses.coupled import term_weights
from nnunetv2_rmr.networks.from_plans import names_rmrnet
from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.settings import RMRSettings


def build_rmrnet(plans_manager: PlansManager, configuration_manager: ConfigurationManager, num_input_channels: int,
                 num_output_channels: int, enable_deep_supervision: bool) -> RMRNet:
    """The configuration's own segmentation network with the fused features (and a cascade's extra channels) as input.

    num_input_channels counts modalities and extra channels. Raises ValueError without RMR settings in the plans, for
    fewer than two modalities, and for RMR plans (whose network is the whole RMRNet) made with other settings.
    """
    settings = RMRSettings.from_plans(plans_manager.plans)
    num_modalities = len(configuration_manager.normalization_schemes)
    whole = names_rmrnet(configuration_manager.network_arch_class_name)
    if whole:
        _check_settings(settings, configuration_manager.network_arch_init_kwargs["front"], plans_manager.plans_name)
    deep_supervision = enable_deep_supervision if takes_deep_supervision(configuration_manager) else None
    network = get_network_from_plans(
        configuration_manager.network_arch_class_name,
        configuration_manager.network_arch_init_kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        num_input_channels if whole else settings.features + num_input_channels - num_modalities,
        num_output_channels,
        allow_init=True,
        deep_supervision=deep_supervision,
    )
    if not whole:
        network = RMRNet(network, num_modalities, dim=len(configuration_manager.patch_size),
                         **settings.network_arguments())
    if settings.balance == "uncertainty":
        network.learn_balance(term_weights(2, settings))
    return network


def takes_deep_supervision(configuration_manager: ConfigurationManager) -> bool:
    """Whether the segmentation network that the configuration names has deep supervision (a transformer has none)."""
    network_class = pydoc.locate(configuration_manager.network_arch_class_name)
    if network_class is None:  # nnU-Net looks further
        return True
    return getattr(network_class, "has_deep_supervision", "deep_supervision" in signature(network_class).parameters)


def _check_settings(settings: RMRSettings, front: dict, plans_name: str) -> None:
    wanted = settings.network_arguments()
    differ = [f"{name} {value!r} (wanted: {wanted[name]!r})" for name, value in front.items() if wanted[name] != value]
    if differ:
        raise ValueError(f"the network of {plans_name} was planned with other RMR settings than are wanted now: "
                         f"{', '.join(differ)}. Put those you want under \"rmr\" in the plans file and plan again "
                         "with nnUNetv2_rmr_plan_experiment, or train on nnU-Net's own plans")
