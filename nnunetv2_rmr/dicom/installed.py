"""Whether the libraries of the extra "dicom" are there; this module, of the folder, can be imported without them."""

from importlib.util import find_spec

from nnunetv2_rmr.files.refused import BadCaseError

LIBRARIES = ("pydicom", "dcm2niix", "highdicom")


def absent_libraries() -> list[str]:
    return [name for name in LIBRARIES if find_spec(name) is None]


def refuse_without_extra(option: str) -> None:
    """Raises BadCaseError if what an option needs is not installed: to be asked before hours of prediction."""
    if absent := absent_libraries():
        raise BadCaseError(f'{option} needs {" and ".join(absent)}: pip install "nnunetv2-rmr[dicom]"')
