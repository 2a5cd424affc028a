"""Where a NIfTI file is not what SimpleITK, nnU-Net's usual reader, makes of it, without a word."""

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from nnunetv2_rmr.files.endings import ENDS_LIKE_NIFTI
from nnunetv2_rmr.files.refused import BadCaseError

ENDINGS = (".nii", ".nii.gz")
SMALLEST_SLOPE = 2.3e-16


def is_nifti(path: str | os.PathLike) -> bool:
    return os.fspath(path).lower().endswith(ENDINGS)


def check_nifti(path: Path) -> None:
    """Raise BadCaseError if a NIfTI file ends early, if its header means one thing to SimpleITK and another to others,
    or if SimpleITK would read another file.

    Of voxels that are missing it makes zeros; of X.nii.gz it reads the voxels of X.nii, if that is there.
    """
    if not is_nifti(path):
        return
    packed = path.name.lower().endswith(".gz")
    if packed and (twin := path.with_name(path.name[:-3])).exists():
        raise BadCaseError(f"{path}: {twin.name} lies beside it, and SimpleITK would read that instead; remove one")
    try:
        image = nibabel.load(path)
        _check_header(path, image)
        # not header.get_data_offset(), which is 0 once the header is loaded
        needed = int(image.dataobj.offset) + math.prod(image.shape) * image.header.get_data_dtype().itemsize
        # Reading to the end also checks gzip's checksum.
        present = path.stat().st_size
        if packed:
            with gzip.open(path, "rb") as file:
                present = sum(map(len, iter(lambda: file.read(1 << 22), b"")))
    except BadCaseError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, OverflowError, nibabel.filebasedimages.ImageFileError,
            nibabel.spatialimages.HeaderDataError) as error:
        raise BadCaseError(f"{path}: can not be read, it is damaged or truncated ({error})") from error
    if present < needed:
        raise BadCaseError(f"{path}: truncated, holds {present} of {needed} bytes")


def _check_header(path: Path, image: nibabel.Nifti1Image) -> None:
    header = image.header
    if any(n < 1 for n in header.get_data_shape()):
        raise BadCaseError(f"{path}: damaged, its header says {' x '.join(map(str, header.get_data_shape()))} voxels")
    if not np.isfinite(image.affine).all() or np.linalg.det(image.affine[:3, :3]) == 0:
        raise BadCaseError(f"{path}: damaged, its header does not say where the image lies")
    if header.get_data_dtype().kind not in "iuf":
        raise BadCaseError(f"{path}: has several values per voxel (colour or complex image); one is needed")
    # as the file has them; nibabel shows what it makes of them
    with nibabel.openers.Opener(path) as file:
        file.seek(108)
        offset, slope, inter = np.frombuffer(file.read(12), header["vox_offset"].dtype).astype(float)
    if header.sizeof_hdr == 348 and header["magic"] == b"n+1" and not offset >= 352:
        raise BadCaseError(f"{path}: damaged, its header says that the voxels begin at byte {offset:g}, within it")
    scaled = np.isfinite(slope) and slope != 0
    if (scaled and abs(slope) < SMALLEST_SLOPE) or (not scaled and np.isfinite(inter) and inter != 0):
        raise BadCaseError(f"{path}: its header says that voxels are scaled by {slope:g} and {inter:g} is added, of "
                            "which programs make different things; save it without scaling, or in other units")


def misnamed_output(case: str, file_ending: str) -> str | None:
    """Why no NIfTI file CASE.nii.gz can be written: SimpleITK would drop a second ending, and write over another case.
    None if all is well."""
    if is_nifti(file_ending) and (second := ENDS_LIKE_NIFTI.search(case)):
        return (f"case {case}: SimpleITK would write {case}{file_ending} under another name, as the case's name ends "
                f"in {second[0]}; rename its files")
    return None


def check_forms(files: Sequence[str | os.PathLike], tolerance: float) -> str | None:
    """A warning if the headers of a case's files have two opinions of where they lie, all the same two; else None.

    A NIfTI header can place the image by its sform and by its qform. Programs differ in which they follow: files that
    fit each other for one of them are apart for the other. tolerance: in parts of the smallest voxel edge. Raises
    BadCaseError if the files differ in this.
    """
    gaps = {file: _between_forms(file) for file in files}
    sizes = {file: np.linalg.norm(gap, axis=1).max() for file, (gap, _) in gaps.items()}
    limit = tolerance * min(edge for _, edge in gaps.values())
    worst = max(sizes, key=sizes.get, default=None)
    if worst is None or sizes[worst] <= limit:
        return None
    told = (f"{worst}: by its sform it lies up to {sizes[worst]:.3g} mm from where its qform has it, and programs "
            "differ in which they follow")
    if all(np.linalg.norm(gap - gaps[worst][0], axis=1).max() <= limit for gap, _ in gaps.values()):
        return f"{told}; all files of the case agree in that"
    raise BadCaseError(f"{told}; not so the case's other files. Find out which of the two is right, and set the "
                        "other's code to 0")


def _between_forms(file: str | os.PathLike) -> tuple[np.ndarray, float]:
    """(8, 3) mm, of the corner voxels from sform to qform, zero if the header has not both; and the smallest edge."""
    if not is_nifti(file):
        return np.zeros((8, 3)), math.inf
    image = nibabel.load(file)
    shape, edge = (*image.shape, 1, 1)[:3], float(min(image.header.get_zooms()[:3]))
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, 8).T
    try:
        forms = [image.header.get_sform(coded=True)[0], image.header.get_qform(coded=True)[0]]
    except (ValueError, nibabel.spatialimages.HeaderDataError) as error:
        raise BadCaseError(f"{file}: its header does not say where the image lies ({error})") from None
    if any(form is None for form in forms):
        return np.zeros((8, 3)), edge
    by_sform, by_qform = (nibabel.affines.apply_affine(form, corners) for form in forms)
    if not np.isfinite(by_qform - by_sform).all():
        raise BadCaseError(f"{file}: its header does not say where the image lies (NaN or infinite)")
    return by_qform - by_sform, edge
