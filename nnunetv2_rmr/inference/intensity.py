"""From normalised intensities back to the units of the reference modality."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class IntensityMap:
    """How nnU-Net normalised the reference modality of one case, and where the case has data at all.

    raw = slope * normalised + intercept. All of nnU-Net's normalisations are affine (CT's clips besides; what it
    clipped can not come back). `inside`: boolean mask (D, H, W) on nnU-Net's cropped, not yet resampled grid; outside
    of it every modality is exactly zero.
    """

    slope: float
    intercept: float
    inside: np.ndarray

    @classmethod
    def fit(cls, raw: np.ndarray, normalised: np.ndarray, inside: np.ndarray) -> "IntensityMap":
        """The map between two versions of one image, same shape (D, H, W), of which none was clipped: least squares."""
        x, y = normalised[inside].astype(np.float64), raw[inside].astype(np.float64)
        variance = x.var()
        slope = ((x - x.mean()) * (y - y.mean())).mean() / variance if variance > 0 else 1.0
        return cls(float(slope), float(y.mean() - slope * x.mean()), inside)

    @classmethod
    def of_ct(cls, training_intensities: dict, inside: np.ndarray) -> "IntensityMap":
        """CTNormalization takes mean and deviation from the training data, so its map is known, whatever it clipped,
        and for a case without its CT, too.

        training_intensities: of the modality, from the plans.
        """
        return cls(float(training_intensities["std"]), float(training_intensities["mean"]), inside)

    def undo(self, normalised: np.ndarray) -> np.ndarray:
        """Normalised image (D, H, W) on the cropped grid -> float32 in the reference modality's units.

        Voxels without data in any modality are zero, as they are in the reference modality.
        """
        raw = normalised.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)
        raw[~self.inside] = 0
        return raw
