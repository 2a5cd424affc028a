"""The segmentation network that a configuration of the plans names, also one without deep supervision."""

import pydoc
from inspect import signature

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn


def planned_network(configuration: ConfigurationManager, input_channels: int, output_channels: int,
                    deep_supervision: bool) -> nn.Module:
    """As nnU-Net's trainer builds and initialises it, except that deep supervision is asked for where there is any."""
    return get_network_from_plans(
        configuration.network_arch_class_name, configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import, input_channels, output_channels, allow_init=True,
        deep_supervision=deep_supervision if takes_deep_supervision(configuration) else None)


def takes_deep_supervision(configuration: ConfigurationManager) -> bool:
    """Whether the segmentation network that the configuration names has deep supervision (a transformer has none)."""
    network_class = pydoc.locate(configuration.network_arch_class_name)
    if not callable(network_class):  # not found there: nnU-Net looks further
        return True
    return getattr(network_class, "has_deep_supervision", "deep_supervision" in signature(network_class).parameters)
