"""Where the body is in a case's images: what fusion metrics, baselines and restoration look at."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_closing, binary_fill_holes, label

ZERO_FACES = 1 / 3  # of the voxels on the image's faces: from here on, zero is what lies outside the body
CLOSED = 2  # voxels
_RESAMPLED_ZERO = 1e-3  # standard deviations; cubic resampling leaves traces of the body in what was zero


def body_mask(images: Sequence[np.ndarray]) -> np.ndarray:
    """Boolean mask of the body, of the images' shape (2D or 3D).

    images: of all modalities, any units. If at least a third of the voxels on the image's faces are zero in all of them
    (skull-stripped scans), the body are the voxels where any is not zero. Else, since air has noise and CT has it at
    -1000, the voxels above Otsu's threshold (IEEE Trans Syst Man Cybern 1979;9:62-66) in any image, of these the
    largest connected part, closed by 2 voxels and its holes filled slice by slice. Images without contrast, or without
    anything above the threshold, have everything that is not zero.
    """
    nonzero = np.logical_or.reduce([image != 0 for image in images])
    if 1 - _on_faces(nonzero).mean() >= ZERO_FACES:
        return nonzero
    tissue = np.logical_or.reduce([image > _otsu_threshold(image) for image in images])
    parts, n = label(tissue)
    if n == 0:
        return nonzero
    body = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    body = binary_closing(np.pad(body, CLOSED, mode="edge"), iterations=CLOSED)
    body = body[(slice(CLOSED, -CLOSED),) * body.ndim]
    for axis in range(body.ndim) if body.ndim == 3 else ():
        for plane in np.moveaxis(body, axis, 0):
            plane |= binary_fill_holes(plane)
    return binary_fill_holes(body)


def body_of_preprocessed(images: Sequence[np.ndarray]) -> np.ndarray:
    """The same of a case as nnU-Net preprocesses it, in normalised intensities."""
    return body_mask([np.where(np.abs(image) < _RESAMPLED_ZERO, 0, image) for image in images])


def _on_faces(mask: np.ndarray) -> np.ndarray:
    return np.concatenate([mask.take(end, axis).ravel() for axis, n in enumerate(mask.shape) if n > 1
                           for end in (0, -1)] or [mask.ravel()])


def _otsu_threshold(image: np.ndarray) -> float:
    # a few metal voxels would leave the histogram no bins for the rest
    image = image.clip(*np.percentile(image, (0.1, 99.9))).astype(np.float32)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(256)
    otsu.Execute(sitk.GetImageFromArray(image))
    return otsu.GetThreshold() if image.min() < image.max() else np.inf
