"""Volumes of a few telling predictions for the report: they are made again, since no prediction is kept."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from nnunetv2_rmr.evaluation.benchmark.model import BenchmarkModel
from nnunetv2_rmr.evaluation.benchmark.run import LabelledCases
from nnunetv2_rmr.evaluation.scan_degradations.conditions import CLEAN, Condition, apply
from nnunetv2_rmr.files.atomic import write_json
from nnunetv2_rmr.inference.fused_writer import appearing_whole, write_image


def choose(results: pd.DataFrame, models: Sequence[str], reference: str) -> list[tuple[str, Condition]]:
    """Case and condition: the first case clean; and the most and the least improved prediction of the last model.

    Improved: mean Dice over labels against the reference model's, over everything but a missing modality.
    """
    first = results.case.iloc[0]
    chosen = [(first, CLEAN)]
    others = [m for m in models if m != reference]
    rows = results[~results.seen.isin(("clean", "missing"))]
    if not others or rows.empty:
        return chosen
    dice = rows.pivot_table("Dice", ["case", "corruption", "severity", "modality"], "model", aggfunc="mean")
    if not {others[-1], reference} <= set(dice):
        return chosen  # one of them has failed on all of it
    improved = (dice[others[-1]] - dice[reference]).dropna().sort_values(kind="stable")
    if improved.empty:
        return chosen
    for case, kind, severity, modality in (improved.index[-1], improved.index[0]):
        chosen.append((case, Condition(kind, int(severity), modality)))
    return list(dict.fromkeys(chosen))


def write_examples(out: Path, chosen: Sequence[tuple[str, Condition]], cases: LabelledCases,
                   models: Sequence[BenchmarkModel]) -> list[str]:
    """Write out/examples/INDEX.json and files: images, reference and every model's prediction and fused image.

    Returns why some could not be made: a model refuses such images, or the data set's format holds no floats. Raises
    OSError if the disk is full.
    """
    folder = out / "examples"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    index, problems = [], []
    for case, condition in chosen:
        name = f"{case}_{condition.corruption}_{condition.severity}_{condition.modality}"
        try:
            index.append(_write_example(folder, name, case, condition, cases, models))
        except OSError:  # the disk is full, say
            raise
        except Exception as error:  # the results do not depend on pictures
            shutil.rmtree(folder / name, ignore_errors=True)
            problems.append(f"no pictures of {name}: {str(error).strip()}")
    write_json(index, folder / "INDEX.json")
    return problems


def _write_example(folder: Path, name: str, case: str, condition: Condition, cases: LabelledCases,
                   models: Sequence[BenchmarkModel]) -> dict:
    channels, ending, writer = cases.images.names, cases.images.file_ending, cases.images.reader_writer
    images, properties, _ = cases.read(case)
    degraded = apply(condition, images, properties["spacing"], case, channels, cases.seed)
    entry = {"case": case, "corruption": condition.corruption, "severity": condition.severity,
             "modality": condition.modality, "images": {}, "label": f"{name}/label{ending}", "predictions": {},
             "fused": {}}
    for i, channel in enumerate(channels):
        entry["images"][channel] = f"{name}/image_{i:04d}{ending}"
        write_image(degraded[i], str(folder / entry["images"][channel]), writer, ending, properties)
    shutil.copyfile(cases.label_file(case), folder / entry["label"])
    for i, model in enumerate(models):
        segmentation, fused = model.predict(degraded, properties, fuse=model.fuses)
        entry["predictions"][model.name] = f"{name}/prediction_{i}{ending}"
        with appearing_whole(str(folder / entry["predictions"][model.name])) as temporary:
            writer().write_seg(segmentation, temporary, properties)
        if fused is not None:
            entry["fused"][model.name] = f"{name}/fused_{i}{ending}"
            write_image(fused, str(folder / entry["fused"][model.name]), writer, ending, properties)
    return entry
