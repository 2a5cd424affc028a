"""From normalised intensities back to the units of the reference modality."""

from dataclasses import dataclass

import numpy as np

_EXACT = 1e-4  # of the range; float32 leaves 1e-6, clipping a few voxels of thousands more than this


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
        """The map between two versions of one image, same shape (D, H, W). If no line fits them they were clipped: then
        without the voxels at the lowest and at the highest normalised intensity.
        """
        x, y = normalised[inside].astype(np.float64), raw[inside].astype(np.float64)
        slope, intercept = _line(x, y)
        if np.abs(slope * x + intercept - y).max() > _EXACT * np.ptp(y):
            unclipped = (x > x.min()) & (x < x.max())
            if np.count_nonzero(unclipped) > 1:
                slope, intercept = _line(x[unclipped], y[unclipped])
        return cls(slope, intercept, inside)

    @classmethod
    def without_image(cls, scheme: str, training_intensities: dict, inside: np.ndarray) -> "IntensityMap":
        """The map for a case without the reference modality, whose own mean and deviation nobody knows.

        CTNormalization takes both from the training data, so its map is known; all else stays in normalised
        intensities: MRI units differ from scan to scan, and the plans hold statistics of the lesions' voxels only.

        scheme: name of nnU-Net's normalisation. training_intensities: of the modality, from the plans.
        """
        if scheme == "CTNormalization":
            return cls(float(training_intensities["std"]), float(training_intensities["mean"]), inside)
        return cls(1.0, 0.0, inside)

    def undo(self, normalised: np.ndarray) -> np.ndarray:
        """Normalised image (D, H, W) on the cropped grid -> float32 in the reference modality's units.

        Voxels without data in any modality are zero, as they are in the reference modality.
        """
        raw = normalised.astype(np.float32) * np.float32(self.slope) + np.float32(self.intercept)
        raw[~self.inside] = 0
        return raw


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the least squares; slope 1 where x is constant."""
    variance = x.var()
    slope = ((x - x.mean()) * (y - y.mean())).mean() / variance if variance > 0 else 1.0
    return float(slope), float(y.mean() - slope * x.mean())
