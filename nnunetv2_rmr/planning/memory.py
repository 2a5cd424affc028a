"""How much memory a computation keeps for its backward pass, found by running it without data."""

import copy
from collections.abc import Callable, Sequence

import torch

from nnunetv2_rmr.networks.rmrnet import RMRNet

# At the worst moment of a step there is more than what the backward pass has to keep: gradients of feature maps, and
# the allocator's gaps. Factor of what is kept, from 15 trainings of U-Nets on a GPU (benchmarks/README.md).
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
