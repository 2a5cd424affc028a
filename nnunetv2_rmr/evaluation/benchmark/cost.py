"""Seconds and peak memory of a piece of work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch


@contextmanager
def measured(device: torch.device) -> Iterator[dict]:
    """Yields a dictionary that holds, after the body, "seconds" and "peak_memory_gb" (10^9 bytes; None if unknown).

    Peak memory: on CUDA what torch allocated on the GPU; elsewhere the resident memory of this process, which Linux can
    tell for a stretch of time, other systems not.
    """
    cost = {"seconds": None, "peak_memory_gb": None}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    start = time.perf_counter()
    yield cost
    cost["seconds"] = round(time.perf_counter() - start, 3)
    if device.type == "cuda":
        cost["peak_memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    else:
        with suppress(OSError):
            line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
            cost["peak_memory_gb"] = int(line.split()[1]) * 1024 / 1e9
