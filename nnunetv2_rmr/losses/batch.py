"""Statistics of a whole batch, also of one that several processes share (DDP)."""

import torch
from torch import distributed as dist


def batch_std(x: torch.Tensor) -> torch.Tensor:
    """Standard deviation of all values of x, over the whole batch: in a process group over all processes' parts."""
    if not (dist.is_available() and dist.is_initialized()):
        return x.std()
    values = x.detach().double()
    sums = torch.stack((values.new_tensor(values.numel()), values.sum(), values.square().sum()))
    dist.all_reduce(sums)
    count, total, squares = sums
    return ((squares - total.square() / count) / (count - 1)).clamp_min(0).sqrt().to(x.dtype)
