"""The commands under trial, on a data set and models so small that each takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tiny
from dicom_files import write_series

NUMBER = 902
DATASET = f"Dataset{NUMBER}_Tiny"
TRAINER = "nnUNetTrainerRMR_tiny"
MODEL = f"{TRAINER}__nnUNetPlans__{tiny.CONFIGURATION}"
TRAIN = ("nnUNetv2_train", NUMBER, tiny.CONFIGURATION, 0, "-tr", TRAINER, "-device", "cpu")


@dataclass(frozen=True)
class Command:
    """words: what is typed, for an output folder. again: what is typed to go on after a bad end, if it is not the same.

    before: what has to be there. env: beside nnU-Net's, for an output folder. ours: not an entry point of nnU-Net's.
    in_place: files that nnU-Net writes in place, and anew each time.
    """

    name: str
    words: Callable[[Path], tuple]
    again: Callable[[Path], tuple] | None = None
    before: Callable[[Path], None] = lambda out: None
    env: Callable[[Path], dict[str, str]] = field(default=lambda out: {})
    ours: bool = True
    in_place: tuple[str, ...] = ()

    def half(self, broken: list[str]) -> list[str]:
        """Of outputs.leavings's lines those that ought not to be."""
        return [line for line in broken if not line.split(" is ")[0].endswith(self.in_place or "\0")]


class Ground:
    """Data set, preprocessed, and a trained model below `root`; made if they are not there."""

    def __init__(self, root: Path):
        self.root = root
        self.env = tiny.nnunet_env(root, nnUNet_rmr_seed="1", OMP_NUM_THREADS="1")
        self.model = root / "results" / DATASET / MODEL
        if not (self.model / "fold_0" / "validation" / "summary.json").exists():
            shutil.rmtree(root)
            tiny.prepare(root, NUMBER, regions=True, test=3)
            tiny.run(*TRAIN, env=self.env)
        self.images, self.labels = root / "raw" / DATASET / "imagesTs", root / "raw" / DATASET / "labelsTs"

    def run(self, command: Command, out: Path, again: bool = False):
        words = (command.again or command.words)(out) if again else command.words(out)
        return tiny.run(*words, env=self.env | command.env(out), check=False)

    def start(self, command: Command, out: Path, output: Path):
        return tiny.start(*command.words(out), env=self.env | command.env(out), output=output)

    def commands(self) -> list[Command]:
        predict = ("nnUNetv2_rmr_predict_from_modelfolder", "-i", self.images, "-m", self.model, "-f", 0, "-device",
                   "cpu", "--disable_tta", "--save_probabilities", "--continue_prediction")
        source = self.root / "source"
        self._cases_to_import(source)
        studies = self.root / "studies"
        self._studies(studies)
        series = ("--series", *(f"{name}={name} *" for name in tiny.CHANNELS))
        imports_dicom = ("nnUNetv2_rmr_import", "-i", studies, *series, "--label", "seg.nii.gz", "--register_to",
                         tiny.CHANNELS[0], "-d", 952, "-n", "New", "-np", 1)
        imports = ("nnUNetv2_rmr_import", "-i", source, "--modality", *(f"{c}=*_{i:04d}.nii.gz" for i, c in
                   enumerate(tiny.CHANNELS)), "--label", "*_seg.nii.gz", "-d", 950, "-n", "New", "-np", 1)

        def results(out: Path) -> dict[str, str]:
            return {"nnUNet_results": str(out)}

        def trained(out: Path) -> None:
            shutil.copytree(self.model, out / DATASET / MODEL)
            shutil.rmtree(out / DATASET / MODEL / "fold_0" / "validation")

        return [
            Command("train", lambda out: TRAIN, lambda out: (*TRAIN, "--c"), ours=False,
                    in_place=("plans.json", "dataset.json", "dataset_fingerprint.json", "debug.json", "progress.png"),
                    env=lambda out: results(out) | {"TINY_ONLY_TRAINS": "1"}),  # validation: below
            Command("train --val", lambda out: (*TRAIN, "--val", "--npz"), before=trained, env=results, ours=False),
            Command("predict, no workers", lambda out: (*predict, "-o", out, "-npp", 0, "-nps", 0)),
            Command("predict, workers", lambda out: (*predict, "-o", out, "-npp", 1, "-nps", 1)),
            Command("predict, DICOM in and out", lambda out: (
                *predict, "-i", studies, "-o", out, *series, "--dicom", "-npp", 0, "-nps", 0)),
            Command("benchmark", lambda out: (
                "nnUNetv2_rmr_benchmark", "-i", self.images, "-l", self.labels, "-m", f"rmr={self.model}", "-o", out,
                "--corruptions", "noise", "missing", "--severities", 1, "-device", "cpu", "--disable_tta",
                "--bootstrap", 200)),
            Command("import", lambda out: (*imports, "-o", out), lambda out: (*imports, "-o", out, "--overwrite")),
            Command("import of DICOM", lambda out: (*imports_dicom, "-o", out),
                    lambda out: (*imports_dicom, "-o", out, "--overwrite")),
            Command("corrupt", lambda out: (
                "nnUNetv2_rmr_corrupt", "-i", self.images, "-o", out, "--corruption", "noise", "blur", "--severity",
                "1", "5", "-np", 1, "--overwrite")),
            Command("fuse", lambda out: ("nnUNetv2_rmr_fuse", "-i", self.images, "-o", out, "-np", 1, "--overwrite")),
        ]

    def _cases_to_import(self, source: Path) -> None:
        """All files in one folder, as many archives have them."""
        if not source.exists():
            source.mkdir()
            for split in ("Tr", "Ts"):
                for image in (self.root / "raw" / DATASET / f"images{split}").iterdir():
                    shutil.copy(image, source)
                for label in (self.root / "raw" / DATASET / f"labels{split}").iterdir():
                    shutil.copy(label, source / label.name.replace(".nii.gz", "_seg.nii.gz"))

    def _studies(self, folder: Path) -> None:
        """The test cases as DICOM, each with its label."""
        for label in self.labels.iterdir() if not folder.exists() else []:
            case = label.name.removesuffix(".nii.gz")
            for i, name in enumerate(tiny.CHANNELS):
                image = sitk.GetArrayFromImage(sitk.ReadImage(str(self.images / f"{case}_{i:04d}.nii.gz")))
                write_series(folder / case / name, image.round().astype(np.int16), f"{name} ax", number=i + 1,
                             spacing=(1, 1, 1), origin=(0, 0, 0))
            shutil.copy(label, folder / case / "seg.nii.gz")
