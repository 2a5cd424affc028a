"""Damaged DICOM series: each is refused by name, or what is made of it is what its files hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from campaign.outcome import Outcome
from dicom_files import OBLIQUE, assert_same_in_the_patient, write_series

from nnunetv2_rmr.dicom.convert import convert_study
from nnunetv2_rmr.dicom.series import matched_series
from nnunetv2_rmr.files.refused import BadCaseError

SHAPE = (5, 6, 7)  # slices, rows, columns
VALUES = {
    "Rows": (0, 7, 65535), "Columns": (0, 8), "BitsAllocated": (1, 8, 12, 32), "BitsStored": (8, 12, 15),
    "HighBit": (11, 14, 16), "PixelRepresentation": (0, 2), "SamplesPerPixel": (0, 3), "NumberOfFrames": (0, 1, 2),
    "PixelSpacing": ([0, 0], [1.1, 1.8], [-1.1, 0.9], ["nan", 1]), "SliceThickness": (0, 100),
    "ImagePositionPatient": ([0, 0, 0], [1e9, 0, 0]), "RescaleSlope": (2, -1, 1e30), "RescaleIntercept": (-1024, 1e30),
    "ImageOrientationPatient": ([0] * 6, [1, 0, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0.5, 0.5]),
    "SeriesInstanceUID": ("1.2.9",), "SeriesNumber": (2, 2 ** 31 - 1), "InstanceNumber": (1,), "PixelData": (b"",),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "X"), "SOPClassUID": ("1.2.840.10008.5.1.4.1.1.88.11", "1.2")}
OTHERS = VALUES["SOPClassUID"]  # what is no image


def damage(files: list[Path], rng: np.random.Generator) -> str:
    """Of one of the files, or the same in all. Returns what was done."""
    file = files[rng.integers(len(files))]
    kind = rng.choice(["attribute", "attribute", "attribute", "byte", "cut", "gone", "twice"])
    if kind == "attribute":
        name = rng.choice(list(VALUES))
        value = VALUES[name][rng.integers(len(VALUES[name]))]
        which = files if rng.random() < 0.4 else [file]
        for changed in which:
            header = pydicom.dcmread(changed)
            if rng.random() < 0.2:
                delattr(header, name) if name in header else None
                told = f"without {name}"
            else:
                setattr(header, name, value)
                told = f"{name}={value}"
            header.save_as(changed)
        return f"{told} in {len(which)} files"
    content = bytearray(file.read_bytes())
    if kind == "byte":
        place = int(rng.integers(128, len(content) - 2 * SHAPE[1] * SHAPE[2]))
        content[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        return f"byte {place} of {file.name}"
    if kind == "cut":
        size = int(rng.integers(len(content)))
        file.write_bytes(content[:size])
        return f"{file.name} cut to {size}"
    if kind == "twice":
        shutil.copy(file, file.with_name("again.dcm"))
    else:
        file.unlink()
    return f"{file.name} is {'there twice' if kind == 'twice' else 'gone'}"


def held(folder: Path) -> sitk.Image:
    """The volume of the images in `folder`: placed as their headers say, values from the end of each file."""
    slices = []
    for file in folder.iterdir():
        header = pydicom.dcmread(file, stop_before_pixels=True)
        if header.get("SOPClassUID") not in OTHERS:
            content = file.read_bytes()[-2 * SHAPE[1] * SHAPE[2]:]
            values = np.frombuffer(content, ("<u2", "<i2")[header.PixelRepresentation])
            slices.append((header, values.reshape(SHAPE[1:])))
    axes = np.reshape(slices[0][0].ImageOrientationPatient, (2, 3)).astype(float)
    normal = np.cross(*axes)
    slices.sort(key=lambda s: float(np.dot(s[0].ImagePositionPatient, normal)))
    image = sitk.GetImageFromArray(np.stack([
        values * float(s.get("RescaleSlope", 1)) + float(s.get("RescaleIntercept", 0)) for s, values in slices]))
    first, last = (np.array(s.ImagePositionPatient, float) for s, _ in (slices[0], slices[-1]))
    image.SetSpacing([*map(float, slices[0][0].PixelSpacing[::-1]), float((last - first) @ normal) / (len(slices) - 1)])
    image.SetOrigin(first.tolist())
    image.SetDirection(np.stack([*axes, normal], axis=1).ravel().tolist())
    return image


def damaged_series(out: Path, number: int, seed: int = 0) -> Outcome:
    """Converted as import and prediction convert them."""
    outcome, rng = Outcome("damaged files: DICOM series"), np.random.default_rng(seed)
    for i in range(number):
        shutil.rmtree(out, ignore_errors=True)
        volume = rng.integers(-500, 1000, SHAPE).astype(np.int16)
        orientation = OBLIQUE if i % 2 else (1, 0, 0, 0, 1, 0)
        files = write_series(out / "study", volume, "T1", kind=("MR", "CT")[i % 3 == 0], orientation=orientation,
                             slopes=[1, 2, 0.5, 1, 3] if i % 5 == 0 else None)
        told, target = damage(files, rng), out / "case_0000.nii.gz"
        try:
            convert_study({target: matched_series(out / "study", {"T1": "T1"})["T1"]})
        except BadCaseError as error:
            outcome.refused(str(error) != "")
            if target.exists():
                outcome.wrong(f"{told}: refused, but {target.name} is there")
            continue
        except Exception as error:
            outcome.wrong(f"{told}: {type(error).__name__}: {error}")
            continue
        try:
            assert_same_in_the_patient(sitk.ReadImage(str(target)), held(out / "study"), rtol=1e-5,
                                       mm=0.05)  # uneven by less than that is taken for even
        except Exception as error:
            outcome.wrong(f"{told}: taken, but {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        else:
            outcome.fine()
    return outcome
