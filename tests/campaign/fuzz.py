"""Damaged NIfTI files: each is refused by name, or what is made of it is what the file holds."""

from __future__ import annotations

import gzip
import logging
import struct
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from campaign.outcome import Outcome
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_rmr.files.input_check import check_array, check_files
from nnunetv2_rmr.files.refused import BadCaseError

SHAPE = (5, 6, 7)
FIELDS = {"sizeof_hdr": (0, "i"), "dim0": (40, "h"), "dim1": (42, "h"), "dim2": (44, "h"), "dim3": (46, "h"),
          "dim4": (48, "h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim1": (80, "f"), "pixdim2": (84, "f"),
          "vox_offset": (108, "f"), "scl_slope": (112, "f"), "scl_inter": (116, "f"), "qform_code": (252, "h"),
          "sform_code": (254, "h"), "quatern_b": (256, "f"), "quatern_c": (260, "f"), "qoffset_x": (268, "f"),
          "srow_x0": (280, "f"), "srow_x3": (292, "f"), "srow_y1": (300, "f"), "magic": (344, "i")}
NUMBERS = {"h": (-32768, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 2048, 2304,
                 4096, 32767),
           "i": (-1, 0, 1, 347, 348, 540, 2 ** 31 - 1),
           "f": (-1e30, -1.0, 0.0, 1e-40, 0.5, 1.0, 2.0, 351.0, 352.0, 400.0, 1e6, 1e30, float("nan"), float("inf"))}


def damaged(rng: np.random.Generator) -> tuple[str, bytes]:
    """What was done, and the bytes of a .nii.gz."""
    array = rng.integers(0, 1000, SHAPE).astype(rng.choice(["uint8", "int16", "float32", "float64"]))
    content = bytearray(nibabel.Nifti1Image(array, np.diag([1, 2, 3, 1.0])).to_bytes())
    told = []
    kind = rng.choice(["header", "header", "header", "bytes", "cut", "gzip"])
    if kind in ("header", "bytes"):
        for _ in range(rng.integers(1, 4)):
            name = rng.choice(list(FIELDS))
            offset, code = FIELDS[name]
            value = NUMBERS[code][rng.integers(len(NUMBERS[code]))]
            if kind == "header":
                struct.pack_into("<" + code, content, offset, value)
                told.append(f"{name}={value}")
            else:
                place = int(rng.integers(348))
                content[place] = int(rng.integers(256))
                told.append(f"byte {place}={content[place]}")
    if kind == "cut":
        content = content[:rng.integers(len(content))]
        told.append(f"cut to {len(content)}")
    packed = bytearray(gzip.compress(bytes(content), 1))
    if kind == "gzip":
        place = int(rng.integers(len(packed)))
        packed[place] ^= 1 << int(rng.integers(8))
        told.append(f"gzip byte {place}")
    return ", ".join(told), bytes(packed)


def fuzz(folder: Path, number: int, seed: int = 0) -> Outcome:
    """By the checks that every command makes of an image, and by nnU-Net's reader behind them."""
    outcome, rng = Outcome("damaged files: the checks that all commands make"), np.random.default_rng(seed)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        told, content = damaged(rng)
        file = folder / f"case{i}_0000.nii.gz"
        file.write_bytes(content)
        try:
            check_files([str(file)])
            image, _ = SimpleITKIO().read_images([str(file)])
            check_array(image, ["T1"], [str(file)], ".nii.gz")
        except (BadCaseError, RuntimeError, AssertionError) as error:  # those of nnU-Net's reader are noted by the case
            outcome.refused(str(error) != "")
        except Exception as error:
            outcome.wrong(f"{told}: {type(error).__name__}: {error}")
        else:
            outcome.compare(told, image[0].T, file)
        file.unlink()
    return outcome
