"""The choice that transform-domain fusion makes: the strongest detail coefficient of any source."""

from collections.abc import Sequence

import numpy as np


def strongest(coefficients: Sequence[np.ndarray]) -> np.ndarray:
    """Per position the coefficient of largest magnitude, with its sign; the first source's if several are."""
    chosen = np.array(coefficients[0])
    for other in coefficients[1:]:
        np.copyto(chosen, other, where=np.abs(other) > np.abs(chosen))
    return chosen
