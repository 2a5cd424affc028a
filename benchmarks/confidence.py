"""Does what is told of a prediction's confidence order cases by Dice? Cross-validated models of quick_compare.py.

    python benchmarks/quick_compare.py --data sarcoma --cross_validate -o OUT --seeds 0 1 2 3 4 --iterations 800 \\
        --epochs 16 --trainers nnUNetTrainerRMR
    python benchmarks/confidence.py --data sarcoma -m OUT -o benchmarks/results/confidence/sarcoma.csv

Every fold's validation cases are predicted by RMRPredictor, with test time augmentation, clean and with every modality
degraded by each kind, as by quick_compare.py. Writes a row for every case and condition, also while it goes on, and
does not do again what is there; prints Spearman's rank correlation of each measure with Dice, with the 95 % interval of
a bootstrap over patients, and how well each tells degraded from clean scans (area under the ROC curve). Measures:

    dB            restoration_db, smallest of all modalities
    entropy       mean over the labels that were found
    width         of volume_of_passes_ml, in proportion to volume_ml; mean over labels
    volume        volume_ml, all labels: what a measure has to be better than, as large lesions are easy

Cases of which nothing was found have only the first; they are counted.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from quick_compare import CLEAN, DEGRADATIONS, GROUPS, in_bfloat16, score_segmentation
from real_dataset import CONFIGURATION, REAL_DATA, make
from scipy.stats import rankdata, spearmanr

MEASURES = {"dB": 1, "entropy": -1, "width": -1, "volume": 1}  # sign: with which Dice should rise
BOOTSTRAPS = 2000
KEYS = ["fold", "condition", "case"]


def validation_cases(fold: int, dataset: str, data_identifier: str) -> Iterator[tuple[str, torch.Tensor, np.ndarray]]:
    """Name, image (C, D, H, W), label (D, H, W), -1 outside, as preprocessed."""
    import json

    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    folder = Path(os.environ["nnUNet_preprocessed"], dataset)
    cases = json.loads((folder / "splits_final.json").read_text())[fold]["val"]
    found = infer_dataset_class(str(folder / data_identifier))(str(folder / data_identifier), cases)
    for case in found.identifiers:
        image, label, *_ = found.load_case(case)
        yield case, torch.from_numpy(image[:]).float(), np.asarray(label[0])


def measure(predictor, image: torch.Tensor, label: np.ndarray) -> dict[str, float]:
    logits = predictor.predict_logits_from_preprocessed_data(image)
    record = predictor.confidence(logits.numpy(), {"spacing": predictor.configuration_manager.spacing,
                                                   "shape_after_cropping_and_before_resampling": label.shape})
    segmentation = np.asarray(predictor.label_manager.convert_logits_to_segmentation(logits))
    changes = {f"dB {name}": db for name, db in record["restoration_db"].items()}
    there = [found for found in record["labels"].values() if found["entropy"] is not None]
    spans = [found["volume_of_passes_ml"] for found in there]
    widths = [(high - low) / found["volume_ml"] for found, (low, high) in zip(there, spans)]
    return {"Dice": score_segmentation(segmentation, label, predictor)["Dice"], "dB": min(changes.values()), **changes,
            "entropy": np.mean([found["entropy"] for found in there]) if there else np.nan,
            "width": np.mean(widths) if there else np.nan,
            "volume": sum(found["volume_ml"] for found in record["labels"].values()),
            "smallest volume": sum(span[0] for span in spans), "largest volume": sum(span[1] for span in spans)}


def predict_fold(fold: int, data: str, model: Path, bf16: bool, done: set[tuple]) -> Iterator[dict]:
    from nnunetv2_rmr.degradations.degrade import degrade_case
    from nnunetv2_rmr.inference.predictor import RMRPredictor

    dataset = REAL_DATA[data].dataset
    predictor = RMRPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(
        str(model / f"models_{fold}" / dataset / f"nnUNetTrainerRMR_short__nnUNetPlans__{CONFIGURATION}"), (fold,))
    if bf16:
        in_bfloat16(predictor.network)
    spacing = list(predictor.configuration_manager.spacing)
    cases = validation_cases(fold, dataset, predictor.configuration_manager.data_identifier)
    for number, (case, image, label) in enumerate(cases):
        for condition in (CLEAN, *DEGRADATIONS):
            if (fold, condition, case) in done:
                continue
            seen = image if condition == CLEAN else degrade_case(image, torch.from_numpy(label >= 0), spacing,
                                                                 seed=number, probabilities={condition: 1.0})
            yield {"fold": fold, "condition": condition, "case": case} | measure(predictor, seen, label)


def resampled(found: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Of the patients, with replacement; all conditions of one stay together."""
    rng, rows = np.random.default_rng(0), list(found.groupby("case").indices.values())
    for _ in range(BOOTSTRAPS):
        yield found.iloc[np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])]


def with_interval(found: pd.DataFrame, statistic) -> str:
    values = [statistic(sample) for sample in resampled(found)]
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return f"{statistic(found):.2f} ({low:.2f} to {high:.2f})"


def auc(found: pd.DataFrame, measure: str) -> float:
    """That a degraded scan of any patient looks less confident than a clean one of any."""
    clean, values = found.condition.eq(CLEAN), rankdata(found[measure] * MEASURES[measure])
    n, m = clean.sum(), (~clean).sum()
    return (values[clean].sum() - n * (n + 1) / 2) / (n * m) if n and m else np.nan


def report(found: pd.DataFrame) -> None:
    nothing = found.entropy.isna()
    print(f"{found.case.nunique()} patients, {len(found)} predictions, {nothing.sum()} of them found nothing (Dice "
          f"{found.Dice[nothing].mean():.2f})\n\nSpearman's rank correlation with Dice\n")
    groups = {group: GROUPS[group] for group in (CLEAN, "noise, blur, fourier", "the other kinds")}
    groups["all"] = (CLEAN, *DEGRADATIONS)
    print("| test images | " + " | ".join(MEASURES) + " |\n|---" * (len(MEASURES) + 1) + "|")
    for group, conditions in groups.items():
        rows = found[found.condition.isin(conditions) & ~nothing]
        print(f"| {group} | " + " | ".join(with_interval(rows, lambda s, m=m: spearmanr(s[m], s.Dice)[0])
                                           for m in MEASURES) + " |")
    print("\nArea under the ROC curve, clean against degraded\n")
    print("| degraded by | " + " | ".join(MEASURES) + " |\n|---" * (len(MEASURES) + 1) + "|")
    for kind in DEGRADATIONS:
        rows = found[found.condition.isin((CLEAN, kind)) & ~nothing]
        print(f"| {kind} | " + " | ".join(with_interval(rows, lambda s, m=m: auc(s, m)) for m in MEASURES) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=REAL_DATA, required=True)
    parser.add_argument("--root", type=Path, help="where --data is, or is written; by default MODELS/DATA")
    parser.add_argument("-m", dest="models", type=Path, required=True, help="quick_compare.py's -o")
    parser.add_argument("-o", dest="out", type=Path, required=True, help="CSV")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--bf16", action="store_true", help="as quick_compare.py's")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    make(args.data, args.root or args.models / args.data)
    os.environ["nnUNet_extTrainer"] = str(Path(__file__).parent / "short_trainers")
    os.environ |= {"COMPARE_EPOCHS": "1", "COMPARE_ITERATIONS": "1"}
    found = pd.read_csv(args.out, dtype={"case": str}) if args.out.exists() else pd.DataFrame(columns=KEYS)
    done = set(found[KEYS].itertuples(index=False, name=None))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for fold in args.folds:
        for row in predict_fold(fold, args.data, args.models, args.bf16, done):
            pd.DataFrame([row]).to_csv(args.out, mode="a", header=not args.out.exists(), index=False,
                                       float_format="%.4g")
            print(".", end="", flush=True, file=sys.stderr)
    report(pd.read_csv(args.out, dtype={"case": str}))


if __name__ == "__main__":
    main()
