"""What the benchmarks of single parts share: sides measured in turn, so that a machine's drift hits all alike."""

import statistics
import time
from collections.abc import Callable


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(sides: dict[str, Callable[[], object]], repeats: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of every call of every side, in turns."""
    for _ in range(warmup):
        for call in sides.values():
            call()
    taken = {name: [] for name in sides}
    for _ in range(repeats):
        for name, call in sides.items():
            taken[name].append(seconds(call))
    return taken


def table(taken: dict[str, list[float]], reference: str) -> str:
    """Medians, and the ratio to the reference turn by turn: median and range."""
    rows = ["| side | median, s | ratio | range |", "|---|---|---|---|"]
    for name, values in taken.items():
        ratios = [v / r for v, r in zip(values, taken[reference])]
        rows.append(f"| {name} | {statistics.median(values):.3f} | {statistics.median(ratios):.2f} | "
                    f"{min(ratios):.2f}-{max(ratios):.2f} |")
    return "\n".join(rows)
