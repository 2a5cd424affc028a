"""Folders full of damaged files through whole commands: every case is done, or named; the command ends with a word."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tiny
from campaign.commands import Ground
from campaign.fuzz import SHAPE, damaged
from campaign.outcome import Outcome
from campaign.outputs import leavings

GRID = {"spacing": (1, 2, 3), "direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}  # of what fuzz.py damages


def damaged_folders(ground: Ground, number: int, out: Path, seed: int = 0) -> list[Outcome]:
    """`number` cases, each with one damaged image, through every command that reads a folder of images."""
    shutil.rmtree(out, ignore_errors=True)
    images, labels, fused = out / "images", out / "labels", out / "fused"
    rng, told = np.random.default_rng(seed), {}
    for i in range(number):
        case = f"c{i:05d}"
        array = rng.uniform(1, 100, (len(tiny.CHANNELS), *SHAPE[::-1])).astype(np.float32)
        for channel, image in enumerate(array):
            tiny.write_image(image, images / f"{case}_{channel:04d}.nii.gz", **GRID)
        what, content = damaged(rng)
        target = images / f"{case}_{i % len(tiny.CHANNELS):04d}.nii.gz"
        target.write_bytes(content)
        told[case] = f"{target.name}: {what}"
        tiny.write_image((array[0] > 50).astype(np.uint8) + (array[0] > 80), labels / f"{case}.nii.gz", **GRID)
        tiny.write_image(array.mean(0), fused / f"{case}.nii.gz", **GRID)
    shutil.copy(ground.model / "dataset.json", out)
    shutil.copytree(images, out / "source")
    for label in labels.iterdir():
        shutil.copy(label, out / "source" / label.name.replace(".nii.gz", "_seg.nii.gz"))
    patterns = [f"{name}=*_{channel:04d}.nii.gz" for channel, name in enumerate(tiny.CHANNELS)]
    commands = {
        "predict": ("nnUNetv2_rmr_predict_from_modelfolder", "-i", images, "-o", out / "predict", "-m", ground.model,
                    "-f", 0, "-device", "cpu", "--disable_tta", "-npp", 0, "-nps", 0),
        "corrupt": ("nnUNetv2_rmr_corrupt", "-i", images, "-o", out / "corrupt", "--corruption", "noise", "--severity",
                    1, "-np", 1),
        "fuse": ("nnUNetv2_rmr_fuse", "-i", images, "-o", out / "fuse", "-np", 1),
        "evaluate_fusion": ("nnUNetv2_rmr_evaluate_fusion", "-fused", fused, "-i", images, "-l", labels, "-o",
                            out / "evaluate_fusion" / "scores.json", "--baselines", "average", "-np", 1),
        "import": ("nnUNetv2_rmr_import", "-i", out / "source", "--modality", *patterns, "--label", "*_seg.nii.gz",
                   "-d", 951, "-n", "Damaged", "-o", out / "import", "--skip_bad_cases", "-np", 1),
        "benchmark": ("nnUNetv2_rmr_benchmark", "-i", images, "-l", labels, "-m", f"x={ground.model}", "-o",
                      out / "benchmark", "--corruptions", "noise", "--severities", 1, "-f", 0, "-device", "cpu",
                      "--disable_tta", "--bootstrap", 100),
    }
    return [one_command(name, words, ground, out / name, told) for name, words in commands.items()]


def one_command(name: str, words: tuple, ground: Ground, folder: Path, told: dict[str, str]) -> Outcome:
    outcome = Outcome(f"damaged files: {name}")
    folder.mkdir()
    result = tiny.run(*words, env=ground.env, check=False)
    found, broken = leavings(folder)
    for problem in broken:
        outcome.wrong(f"{name}: {problem}")
    if "Traceback" in result.stdout:
        outcome.wrong(f"{name}: a traceback: {result.stdout[result.stdout.index('Traceback'):][:1500]}")
    if any("failed_cases.log" in str(file) for file in folder.rglob("*.log")):
        log = next(folder.rglob("failed_cases.log")).read_text()
        outcome.wrong(f"{name}: unexpected failures: {log[-1500:]}")
    done = " ".join(found) + "".join(file.read_text() for file in folder.rglob("*.json*"))
    # ITK warns of odd headers of what is then done all the same
    said = "\n".join(line for line in result.stdout.splitlines()
                     if not line.startswith(("predicting ", "NiftiImageIO (")) and "dB to its restoration" not in line)
    for case, what in told.items():
        if case in said:
            outcome.refused(True)
        elif case in done:
            outcome.fine()
        else:
            outcome.wrong(f"{name}: neither done nor named: {what}")
    return outcome
