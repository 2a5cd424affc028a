"""How far a patient has to move between two scans until the commands warn, and how well --register_to puts it right.

    python benchmarks/misregistration.py sarcoma -o OUT          # or glioma, brats2021

Of every case of ../shared/data each modality but the first is moved on its grid (voxels of at least 2 mm; what comes
from outside is the nearest voxel's) by 0 to 20 mm along a random direction, or turned by 5 or 10 degrees about a
random axis through its centre. OUT/DATA.csv has a line for every modality and motion: whether it is warned of, what was
found, and of every n-th case (--register_every) how many mm, on average over the image's inner half, the registered one
lies from where it should: from where it lay before it was moved (error), and from where the unmoved one is registered
to (repeated), which does not hold against the registration that the patient had really moved. Of an unmoved MR on CT
it also says how far the patient had really moved as seen by something else: the best correlation with the CT recoded
to look like T1 (apart).
"""

import argparse
import csv
import itertools
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from real_dataset import REAL_DATA, SHARED

from nnunetv2_rmr.registration.misregistration import COARSE_MM, best_shift, coarse
from nnunetv2_rmr.registration.rigid import Registration, register

MOTIONS = (*(("mm", size) for size in (0, 2, 5, 10, 20)), ("degrees", 5), ("degrees", 10))
REGISTERED = (("mm", 10), ("degrees", 10))  # beside the unmoved one; minutes, not an hour
FIELDS = ("data", "case", "modality", "unit", "size", "warned", "found_mm", "before", "after", "seconds", "apart_mm",
          "error_mm", "repeated_mm", "problem", "registered_seconds")
HU_AS_T1 = ((-400, -200, -120, -60, 0, 90, 150, 250, 450, 700), (0, 60, 100, 100, 30, 30, 50, 60, 20, 0))  # bright fat


def read(file: Path) -> sitk.Image:
    image = sitk.ReadImage(str(file), sitk.sitkFloat32)
    return sitk.BinShrink(image, [max(1, round(2 / mm)) for mm in image.GetSpacing()])


def motion(image: sitk.Image, unit: str, size: float, rng: np.random.Generator) -> sitk.Transform:
    """From where a point is to where it was before."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    versor = sitk.VersorTransform(direction.tolist(), np.radians(size) if unit == "degrees" else 0.0)
    return sitk.VersorRigid3DTransform(versor.GetVersor(), (direction * size if unit == "mm" else [0, 0, 0]), centre)


def inner_points(image: sitk.Image) -> np.ndarray:
    """Positions (mm) of a 5^3 grid over the image's inner half."""
    return np.array([image.TransformContinuousIndexToPhysicalPoint([f * (n - 1) for f, n in zip(part, image.GetSize())])
                     for part in itertools.product(np.linspace(0.25, 0.75, 5), repeat=3)])


def judged(fixed: sitk.Image, moving: sitk.Image) -> dict:
    spacing = fixed.GetSpacing()[::-1]
    blocks = [max(1, round(COARSE_MM / mm)) for mm in spacing]
    arrays = [sitk.GetArrayFromImage(image) for image in (fixed, moving)]
    start = time.perf_counter()
    shift = best_shift(*(coarse(array, spacing) for array in arrays), np.multiply(spacing, blocks))
    return {"warned": int(shift.suspicious), "found_mm": np.linalg.norm(shift.mm), "before": shift.before,
            "after": shift.after, "seconds": time.perf_counter() - start}


def apart(ct: sitk.Image, mr: sitk.Image) -> float:
    """mm from where a header says that an MR lies to where it looks like the CT."""
    images = [coarse(array, ct.GetSpacing()[::-1]) for array in (
        np.interp(sitk.GetArrayViewFromImage(ct), *HU_AS_T1), sitk.GetArrayFromImage(mr))]
    images[1] = images[1].clip(0, np.percentile(images[1], 99))
    scores = sitk.GetArrayFromImage(sitk.FFTNormalizedCorrelation(*map(sitk.GetImageFromArray, images),
                                                                  images[0].size // 2))
    shift = np.unravel_index(scores.argmax(), scores.shape) - np.array(scores.shape) // 2
    spacing = [mm * max(1, round(COARSE_MM / mm)) for mm in ct.GetSpacing()[::-1]]
    return float(np.linalg.norm(shift * spacing))


def registered(fixed: sitk.Image, moved: sitk.Image, back: sitk.Transform, unmoved: Registration) -> dict:
    """The errors; without a registration (problem) they are what the motion left."""
    start = time.perf_counter()
    found = register(fixed, moved)
    seconds, points = time.perf_counter() - start, inner_points(fixed)
    again = np.array([back.TransformPoint(point) for point in where(found, points)])  # in the unmoved image
    return {"error_mm": np.linalg.norm(again - points, axis=1).mean(), "problem": found.problem,
            "repeated_mm": np.linalg.norm(again - where(unmoved, points), axis=1).mean(),
            "registered_seconds": seconds}


def where(found: Registration, points: np.ndarray) -> np.ndarray:
    return points if found.problem else points @ found.matrix.T + found.offset


def rows(name: str, register_every: int):
    modalities = REAL_DATA[name].modalities
    for number, case in enumerate(sorted(folder.name for folder in (SHARED / name).iterdir())):
        files = {modality: SHARED / name / case / file for modality, file in modalities.items()}
        images = {modality: read(file) for modality, file in files.items() if file.exists()}
        first, rng = next(iter(images)), np.random.default_rng(number)
        for modality in list(images)[1:]:
            chosen = number % register_every == 0
            unmoved = register(images[first], images[modality]) if chosen else None
            for unit, size in MOTIONS:
                back = motion(images[modality], unit, size, rng)
                moved = sitk.Resample(images[modality], images[modality], back, sitk.sitkLinear, 0.0,
                                      sitk.sitkFloat32, True)  # a cropped scan has no dark margin
                row = {"data": name, "case": case, "modality": f"{modality} on {first}", "unit": unit, "size": size}
                row |= judged(images[first], moved)
                if size == 0 and first == "CT" and modality == "MR_T1":
                    row["apart_mm"] = apart(images[first], images[modality])
                if unmoved and (unit, size) in REGISTERED:
                    row |= registered(images[first], moved, back, unmoved)
                elif unmoved and size == 0:
                    points = inner_points(images[first])
                    moves = np.linalg.norm(where(unmoved, points) - points, axis=1).mean()
                    row |= {"error_mm": moves, "problem": unmoved.problem}
                yield {key: f"{value:.3g}" if isinstance(value, float) else value for key, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=REAL_DATA)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--register_every", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with open(args.out / f"{args.name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for row in rows(args.name, args.register_every):
            writer.writerow(row)
            file.flush()


if __name__ == "__main__":
    main()
