"""Where any segmentation network's last features are: what goes into the module that makes its logits."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def find_last_features(network: nn.Module, input_channels: int,
                       patch_size: Sequence[int]) -> tuple[str, int, tuple[float, ...]]:
    """Name of the module that makes the logits, channels of its input, and how many times coarser than the image this
    is, per spatial axis. Found by one forward pass of a copy without data, so the network's size does not matter.

    The module is the innermost whose output is the network's (of deep supervision the finest). Raises ValueError for a
    network whose logits come out of no module's hands as they are.
    """
    shadow = copy.deepcopy(network).to("meta").eval()
    names = {module: name for name, module in shadow.named_modules()}
    calls: list[tuple[nn.Module, Any, Any]] = []  # whatever they take and give
    handles = [module.register_forward_hook(lambda m, inputs, output: calls.append((m, inputs[0], output)))
               for module in shadow.modules() if module is not shadow]
    with torch.no_grad():
        logits = shadow(torch.empty(1, input_channels, *patch_size, device="meta"))
    for handle in handles:
        handle.remove()
    logits = logits[0] if isinstance(logits, (list, tuple)) else logits
    for module, features, output in calls:  # inner modules are done before those around them
        if output is logits and features.ndim == logits.ndim:
            return names[module], features.shape[1], tuple(n / m for n, m in zip(patch_size, features.shape[2:]))
    raise ValueError(f"{type(network).__name__}: no module's output is the network's logits, so its last features "
                     "can not be found")


class Tap:
    """Holds on to what goes into a module, within its own `with` block; else nothing is kept alive."""

    def __init__(self, module: nn.Module) -> None:
        self._wanted = False
        self.held: torch.Tensor | None = None
        module.register_forward_pre_hook(self._hold)

    def _hold(self, module: nn.Module, inputs: tuple) -> None:
        if self._wanted:
            self.held = inputs[0]

    def __enter__(self) -> "Tap":
        self._wanted = True
        return self

    def __exit__(self, *exception) -> None:
        self._wanted, self.held = False, None
