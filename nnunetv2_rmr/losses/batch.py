"""Statistics of a whole batch, also of one that several processes share (DDP)."""

import torch
from torch import distributed as dist


def batch_std(x: torch.Tensor) -> torch.Tensor:
    """Standard deviation of all values of x, over the whole batch: in a process group over all processes' parts."""
    if not (dist.is_available() and dist.is_initialized()):
        return x.std()
    x = x.detach()
    # summed in float64, but not copied to it, which would take four times the memory of float16 features
    total, squares = x.sum(dtype=torch.float64), torch.linalg.vector_norm(x, dtype=torch.float64).square()
    sums = torch.stack((torch.full_like(total, x.numel()), total, squares))
    dist.all_reduce(sums)
    count, total, squares = sums
    return ((squares - total.square() / count) / (count - 1)).clamp_min(0).sqrt().to(x.dtype)
