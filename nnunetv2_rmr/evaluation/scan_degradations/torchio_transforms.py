"""TorchIO's simulations of artefacts, with parameters that we draw."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch


def import_torchio():
    """The module torchio. Raises ImportError with what to type, also for versions that may mean other things."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations in what it imports are none of our user's business
            import torchio
    except ImportError as error:
        raise ImportError('this degradation needs TorchIO: pip install "nnunetv2-rmr[benchmark]" '
                                  f"({error})") from error
    if not torchio.__version__.startswith("1."):
        raise ImportError(f"this degradation needs TorchIO 1.x, but {torchio.__version__} is installed: "
                                  'pip install "nnunetv2-rmr[benchmark]"')
    return torchio


def apply_torchio(name: str, volume: np.ndarray, spacing: tuple[float, ...], **parameters: Any) -> np.ndarray:
    """A copy of the volume (3 axes) after the deterministic transform torchio.`name` with these parameters.

    TorchIO calls the axes of its arrays X, Y, Z, but no transform used here treats them as left, front or up: we hand
    over the volume as it is and read X as "first axis". The affine says that the axes are orthogonal, `spacing` mm wide
    and that the origin of the world lies in the middle of the volume: TorchIO's Motion rotates about that origin.
    """
    torchio = import_torchio()
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-0.5 * (n - 1) * s for n, s in zip(volume.shape, spacing)]
    image = torchio.ScalarImage(tensor=torch.from_numpy(np.array(volume, dtype=np.float32))[None], affine=affine)
    transform = getattr(torchio, name)(copy=False, **parameters)
    with torch.random.fork_rng(devices=[]):  # TorchIO draws whether to apply the transform, even when that is certain
        return transform(image).data[0].numpy()
