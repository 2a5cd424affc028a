"""Is the fused image a copy of one source? Most fusion metrics reward that."""

from collections.abc import Sequence

import numpy as np

from nnunetv2_rmr.evaluation.fusion_metrics.edges import EdgePreservation

CORRELATION = 0.99  # above: a copy
OWN_EDGES = 0.05  # below, for every other source: a copy, if the image shows the source itself
SHOWS_ITSELF = 0.5  # Qabf of the source


def copied_source(metric: EdgePreservation, fused, sources: Sequence, correlations: Sequence[float]) -> int | None:
    """Number of the source that the fused image is a copy of; None if it is none.

    A copy correlates with a source (Pearson's r inside the body) by more than .99; or it shows the source (Qabf of at
    least .5, so of inverted contrast, too) and none of the others: their own edges, where the source's gradient is
    below its median, all come out below .05.

    fused, sources: of metric.describe. correlations: of the fused image with every source.
    """
    closest = max(range(len(sources)), key=lambda i: np.nan_to_num(correlations[i], nan=-1.0))
    if correlations[closest] > CORRELATION:
        return closest
    for i, source in enumerate(sources):
        if metric.compare(fused, [source]) < SHOWS_ITSELF:
            continue
        others = [metric.compare_own(metric.own(other, [source]), fused, other)
                  for j, other in enumerate(sources) if j != i]
        others = [value for value in others if not np.isnan(value)]
        if others and max(others) < OWN_EDGES:
            return i
    return None
