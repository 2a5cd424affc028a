"""How much memory a computation keeps for its backward pass, found by running it without data."""

from collections.abc import Callable

import torch


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
