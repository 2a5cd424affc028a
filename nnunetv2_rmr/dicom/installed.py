"""Whether the libraries of the extra "dicom" are there; this module, of the folder, can be imported without them."""

from importlib.util import find_spec

from nnunetv2_rmr.files.refused import BadCaseError


def require_dicom() -> None:
    """Raises BadCaseError if what DICOM outputs need is not installed: to be asked before hours of prediction."""
    if absent := [name for name in ("pydicom", "highdicom") if find_spec(name) is None]:
        raise BadCaseError(f"--dicom needs {' and '.join(absent)}: pip install \"nnunetv2-rmr[dicom]\"")
