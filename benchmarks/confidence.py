"""Does what is told of a prediction's confidence order cases by Dice? Cross-validated models of quick_compare.py.

    python benchmarks/quick_compare.py --data sarcoma --cross_validate -o OUT --seeds 0 1 2 3 4 --iterations 800 \\
        --epochs 16 --trainers nnUNetTrainerRMR
    python benchmarks/confidence.py --data sarcoma -m OUT -o benchmarks/results/confidence/sarcoma.csv --disable_tta
    python benchmarks/confidence.py --data sarcoma -m OUT -o benchmarks/results/confidence/sarcoma.csv \\
        --conditions clean

Every fold's validation cases are predicted by RMRPredictor, clean and with every modality degraded by each kind, as by
quick_compare.py. Writes a row for every case, condition and number of passes, also while it goes on, and does not do
again what is there; prints Spearman's rank correlation of each measure with Dice, with the 95 % interval of
a bootstrap over patients, and how well each tells degraded from clean scans (area under the ROC curve). Measures:

    dB            restoration_db, smallest of all modalities
    entropy       of the lesion
    width         of interval_ml, in proportion to its middle
    volume        volume_ml: what a measure has to be better than, as large lesions are easy

Cases of which nothing was found have only the first; they are counted.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from quick_compare import CLEAN, DEGRADATIONS, GROUPS
from real_dataset import CONFIGURATION, REAL_DATA, make
from scipy.stats import rankdata, spearmanr

MEASURES = {"dB": 1, "entropy": -1, "width": -1, "volume": 1}  # sign: with which Dice should rise
BOOTSTRAPS = 2000
KEYS = ["fold", "condition", "case", "passes"]


def load_model(fold: int, data: str, models: Path, mirror: bool):
    from nnunetv2_rmr.inference.predictor import RMRPredictor

    predictor = RMRPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False,
                             perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(
        str(models / f"models_{fold}" / REAL_DATA[data].dataset
            / f"nnUNetTrainerRMR_short__nnUNetPlans__{CONFIGURATION}"), (fold,))
    if mirror:
        all_passes_at_once(predictor.network)
    predictor.fuse = lambda *_: None  # nobody looks at the fused image
    return predictor


def all_passes_at_once(network: torch.nn.Module) -> None:
    """The first pass through a tile, which asks for images, makes the seven others, too: several times as fast on a
    CPU, where torch has no fast convolution for a single small patch."""
    forward, left = network.forward, []

    def run(x: torch.Tensor, images: bool = False):
        if not images:
            return left.pop(0)
        mirrored = [axes for n in range(4) for axes in combinations((2, 3, 4), n)]
        logits, restored = forward(torch.cat([x.flip(axes) for axes in mirrored]), images=True)
        left[:] = logits[1:].split(1)
        return logits[:1], restored[:1]

    network.forward = run


def validation_cases(fold: int, dataset: str, data_identifier: str) -> Iterator[tuple[str, torch.Tensor, np.ndarray]]:
    """Name, image (C, D, H, W), label (D, H, W), -1 outside, as preprocessed."""
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
    (found,) = record["labels"].values()  # both data sets have one
    low, high = found["interval_ml"] or (None, None)
    return {"Dice": 2 * ((segmentation == 1) & (label == 1)).sum() / ((segmentation == 1).sum() + (label == 1).sum()),
            "dB": min(changes.values()), **changes, "entropy": found["entropy"],
            "width": None if low is None else 2 * (high - low) / (high + low), "volume": found["volume_ml"]}


def predict(args: argparse.Namespace, done: set[tuple]) -> Iterator[dict]:
    from nnunetv2_rmr.degradations.degrade import degrade_case

    model, passes = cache(load_model), 1 if args.disable_tta else 8
    for condition, fold in ((condition, fold) for condition in args.conditions for fold in args.folds):
        predictor = model(fold, args.data, args.models, not args.disable_tta)
        configuration = predictor.configuration_manager
        cases = validation_cases(fold, REAL_DATA[args.data].dataset, configuration.data_identifier)
        for number, (case, image, label) in enumerate(cases):
            if (fold, condition, case, passes) not in done:
                seen = image if condition == CLEAN else degrade_case(
                    image, torch.from_numpy(label >= 0), list(configuration.spacing), seed=number,
                    probabilities={condition: 1.0})
                yield dict(zip(KEYS, (fold, condition, case, passes))) | measure(predictor, seen, label)


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
    print(f"\n{found.passes.iloc[0]} pass(es): {found.case.nunique()} patients, {len(found)} predictions; in "
          f"{nothing.sum()} nothing was found (mean Dice {found.Dice[nothing].mean():.2f})\n")
    groups = {group: GROUPS[group] for group in (CLEAN, "noise, blur, fourier", "the other kinds")}
    groups |= {"all": (CLEAN, *DEGRADATIONS)}
    found = found[~nothing]
    measures = [measure for measure in MEASURES if found[measure].notna().any()]
    table("Spearman's rank correlation with Dice", {group: found[found.condition.isin(kinds)] for group, kinds
                                                    in groups.items()}, measures,
          lambda rows, measure: spearmanr(rows[measure], rows.Dice)[0] if len(rows) > 2 else np.nan)
    table("Area under the ROC curve, clean against degraded",
          {kind: found[found.condition.isin((CLEAN, kind))] for kind in DEGRADATIONS}, measures, auc)


def table(title: str, rows_of: dict[str, pd.DataFrame], measures: list[str], statistic) -> None:
    print(f"{title}\n\n| test images | n | {' | '.join(measures)} |\n|---{'|---' * (len(measures) + 1)}|")
    for name, rows in rows_of.items():
        if np.isfinite(statistic(rows, measures[0])):
            print(f"| {name} | {len(rows)} | " + " | ".join(
                with_interval(rows, lambda sample, m=measure: statistic(sample, m)) for measure in measures) + " |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=REAL_DATA, required=True)
    parser.add_argument("--root", type=Path, help="where --data is, or is written; by default MODELS/DATA")
    parser.add_argument("-m", dest="models", type=Path, required=True, help="quick_compare.py's -o")
    parser.add_argument("-o", dest="out", type=Path, required=True, help="CSV")
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--conditions", choices=(CLEAN, *DEGRADATIONS), nargs="+", default=[CLEAN, *DEGRADATIONS])
    parser.add_argument("--disable_tta", action="store_true", help="one pass; eight times as fast, and no width")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    make(args.data, args.root or args.models / args.data)
    os.environ["nnUNet_extTrainer"] = str(Path(__file__).parent / "short_trainers")
    os.environ |= {"COMPARE_EPOCHS": "1", "COMPARE_ITERATIONS": "1"}
    found = pd.read_csv(args.out, dtype={"case": str}) if args.out.exists() else pd.DataFrame(columns=KEYS)
    done = set(found[KEYS].itertuples(index=False, name=None))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for row in predict(args, done):
        pd.DataFrame([row]).to_csv(args.out, mode="a", header=not args.out.exists(), index=False, float_format="%.4g")
        print(".", end="", flush=True, file=sys.stderr)
    for _, rows in pd.read_csv(args.out, dtype={"case": str}).groupby("passes"):
        report(rows)


if __name__ == "__main__":
    main()
