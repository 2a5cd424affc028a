"""How much a corruption changed an image: equal parameters do not mean equal severity."""

import numpy as np


def image_difference(clean: np.ndarray, corrupted: np.ndarray, body: np.ndarray) -> float:
    """Root mean squared difference in the body / standard deviation of the clean image there. 0: nothing changed.

    All (Z, Y, X), body boolean. NaN if the body is empty or the clean image constant in it. Raises ValueError for
    different shapes.
    """
    if not clean.shape == corrupted.shape == body.shape:
        raise ValueError(f"clean {clean.shape}, corrupted {corrupted.shape} and body {body.shape} must have one shape")
    inside = clean[body].astype(np.float64)
    if inside.size == 0 or (deviation := inside.std()) == 0:
        return float("nan")
    return float(np.sqrt(np.mean((corrupted[body] - inside) ** 2)) / deviation)
