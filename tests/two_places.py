"""A NIfTI header that places its image twice."""

from pathlib import Path

import nibabel


def move_qform(file: Path, mm: float) -> None:
    """Afterwards the image lies where it lay by its sform, and so many mm from there, along x, by its qform."""
    image = nibabel.load(file)
    moved = image.affine.copy()
    moved[0, 3] += mm
    image = nibabel.Nifti1Image(image.get_fdata(dtype="float32"), image.affine)
    image.set_sform(image.affine, 1)
    image.set_qform(moved, 1)
    nibabel.save(image, file)
