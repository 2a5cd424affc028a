"""What outputs as DICOM say of the program that made them."""

import unicodedata

from nnunetv2_rmr import __version__

MANUFACTURER = "nnunetv2-rmr"
VERSION = __version__
FUSED_SERIES, SEGMENTATION_SERIES = 9001, 9002  # SeriesNumber: behind those of scanners in a viewer's list


def dicom_text(text: str, length: int = 64) -> str:
    """At most `length` characters that every DICOM file can hold, whatever its character set: accents go, other letters
    become question marks."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode().replace("\\", "/")[:length].strip() or "?"
