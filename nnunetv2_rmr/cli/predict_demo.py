"""`nnUNetv2_rmr_predict --demo`: a small model and a simulated case come with the package (demo/DATA.md)."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from nnunetv2_rmr.cli.argument_types import output_folder

DEMO = "--demo"
DATA = Path(__file__).resolve().parents[1] / "demo"
MODEL, IMAGES, LABELS, CASE = DATA / "model", DATA / "images", DATA / "labels", "phantom_012"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=f"{Path(sys.argv[0]).name} {DEMO}", description=(
        "Predicts a simulated brain with lesions with a small model; both come with the package. Writes the "
        "segmentation, the fused image and a page that shows them."))
    p.add_argument("-o", type=output_folder, default="demo_prediction", metavar="FOLDER", help="default %(default)s")
    p.add_argument("-device", choices=("cpu", "cuda", "mps"), default="cpu", help="default %(default)s")
    return p


def demo(predict: Callable[[str], None]) -> None:
    """predict: runs one of nnU-Net's entry points, by its name, on sys.argv; exits if that fails."""
    given = parser().parse_args([word for word in sys.argv[1:] if word != DEMO])
    sys.argv[1:] = ["-i", str(IMAGES), "-o", str(given.o), "-m", str(MODEL), "-f", "0", "-device", given.device,
                    "--disable_tta"]
    predict("predict_entry_point_modelfolder")

    from nnunetv2_rmr.report.view import write_view

    print(f"Dice of the lesions: {_dice(given.o):.2f} (the brain is simulated, so the truth is known)")
    page = given.o / "view.html"
    write_view(IMAGES, given.o, [CASE], page, LABELS)
    print(f"Page with both outputs: {page}")


def _dice(predictions: Path) -> float:
    import numpy as np
    import SimpleITK as sitk

    truth, found = (sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{CASE}.nii.gz"))) > 0
                    for folder in (LABELS, predictions))
    return 2 * np.count_nonzero(truth & found) / (np.count_nonzero(truth) + np.count_nonzero(found))
