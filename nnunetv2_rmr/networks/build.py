"""RMRNet around the segmentation network that the plans name."""

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_rmr.losses.coupled import term_weights
from nnunetv2_rmr.networks.rmrnet import RMRNet
from nnunetv2_rmr.settings import RMRSettings


def build_rmrnet(plans_manager: PlansManager, configuration_manager: ConfigurationManager, num_input_channels: int,
                 num_output_channels: int, enable_deep_supervision: bool) -> RMRNet:
    """The configuration's own segmentation network with the fused features (and a cascade's extra channels) as input.

    num_input_channels counts modalities and extra channels. Raises ValueError without RMR settings in the plans and
    for fewer than two modalities.
    """
    settings = RMRSettings.from_plans(plans_manager.plans)
    num_modalities = len(configuration_manager.normalization_schemes)
    segmentation = get_network_from_plans(
        configuration_manager.network_arch_class_name,
        configuration_manager.network_arch_init_kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        settings.features + num_input_channels - num_modalities,
        num_output_channels,
        allow_init=True,
        deep_supervision=enable_deep_supervision,
    )
    return RMRNet(segmentation, num_modalities, dim=len(configuration_manager.patch_size),
                  balanced_terms=tuple(term_weights(2, settings)) if settings.balance == "uncertainty" else (),
                  **settings.network_arguments())
