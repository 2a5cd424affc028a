"""Which files are read, by the endings of their names."""

import os
import re

# TIFF, Analyze and JPEG are left out on purpose: SimpleITK reads truncated TIFFs and Analyze files without complaint,
# neither says reliably where its voxels lie, and JPEG is lossy.
READABLE = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".png", ".bmp")
# Of a case of such a name SimpleITK would write the files under another one.
ENDS_LIKE_NIFTI = re.compile(r"\.(nii|img|hdr|nia)(\.gz)?$", re.IGNORECASE)


def case_name(file: str | os.PathLike, ending: str) -> str:
    """CASE of the file .../CASE_0000 with this ending; the whole name of a file that is not named so."""
    return re.sub(r"_[0-9]{4}" + re.escape(ending) + r"\Z", "", os.path.basename(file))


def file_ending(name: str | os.PathLike) -> str | None:
    """The ending of a format the importer reads (lower case, with dot), or None."""
    lower = os.fspath(name).lower()
    return next((ending for ending in READABLE if lower.endswith(ending)), None)
