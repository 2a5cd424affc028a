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


def summary(taken: dict[str, list[float]], reference: str) -> list[dict]:
    """A row per side: its median, and the ratio to the reference turn by turn: median and range."""
    rows = []
    for name, values in taken.items():
        ratios = [v / r for v, r in zip(values, taken[reference])]
        rows.append({"side": name, "seconds": statistics.median(values), "ratio": statistics.median(ratios),
                     "ratio_range": [min(ratios), max(ratios)], "all_seconds": values})
    return rows


def table(rows: list[dict]) -> str:
    return "\n".join(["| side | median, s | ratio | range |", "|---|---|---|---|"] + [
        f"| {row['side']} | {row['seconds']:.3f} | {row['ratio']:.2f} | {row['ratio_range'][0]:.2f}-"
        f"{row['ratio_range'][1]:.2f} |" for row in rows])
