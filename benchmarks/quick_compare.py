"""Do the trainers differ? A comparison without leaving the process or the network's grid, for machines without a GPU.

    python benchmarks/quick_compare.py -d Dataset999_Phantom -c 3d_small -o OUT --seeds 0 1 2 --iterations 300 \\
        --trainers nnUNetTrainer nnUNetTrainer_RMRDegradations nnUNetTrainerRMR

Every trainer of short_trainers/ named here is trained on all training cases, once per seed, and predicts the test cases
(imagesTs, labelsTs), which no training has seen: clean, and with every modality degraded by each kind of
nnunetv2_rmr.degradations, drawn as in training and the same for all models. All scores are taken on the preprocessed
grid. Segmentation: Dice and HD95 (mm), mean over labels or regions. Fused image: PSNR inside the body and SSIM against
the clean reference modality (restoration; beside it the same of the degraded reference modality, "input"), and the
fusion metrics Qabf, VIF and Q_MI against the clean modalities (beside it those of the voxel-wise average of what the
network saw, "average"). With --missing also with each modality taken away: zeros in its place, of which an RMR network
is told as by nnUNetv2_rmr_predict --missing. compare_trainers.py compares segmentations by nnU-Net's commands on the
scans' own grid, with the benchmark's corruptions; it takes several times as long.

Writes OUT/TRAINER_SEED.json as soon as one is done, OUT/means.csv at the end, and prints tables of what is there: means
over cases and seeds, and the difference to the first trainer with the 95 % interval of a t-test over seeds (over folds,
each the mean of its trainings, with --cross_validate). What OUT has already, as JSON or in means.csv (those of the
tables in benchmarks/README.md are in benchmarks/results/), is not done again. One thread each by default: start as many
as there are cores, with --parts and --part.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from compare_trainers import HERE, interval
from monai.inferers import sliding_window_inference

from nnunetv2_rmr.atomic import replacing
from nnunetv2_rmr.degradations.degrade import DEGRADATIONS, degrade_case
from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import body_mask, to_unit_range
from nnunetv2_rmr.evaluation.fusion_metrics.scores import fusion_scores
from nnunetv2_rmr.evaluation.restoration import restoration_scores
from nnunetv2_rmr.evaluation.segmentation_metrics import segmentation_scores
from nnunetv2_rmr.settings import channel_names

CLEAN = "clean"
WITHOUT = "without "  # the modality that is named then
GROUPS = {CLEAN: (CLEAN,), "noise, blur, fourier": ("noise", "blur", "fourier"),
          "the other kinds": tuple(kind for kind in DEGRADATIONS if kind not in ("noise", "blur", "fourier")),
          **{kind: (kind,) for kind in DEGRADATIONS}}
SCORES = {"Dice": 3, "HD95": 1, "restored PSNR": 2, "restored SSIM": 3, "fused Qabf": 3, "fused VIF": 3,
          "fused Q_MI": 3}  # and how many decimals are printed
RUN = ["trainer", "seed"]
FOLDS = 10  # at most
Scores = dict[str, float]


def train(name: str, plans: dict, configuration: str, fold: int | str, dataset_json: dict, device: torch.device):
    sys.path.insert(0, str(HERE / "short_trainers"))
    import short_trainers

    trainer = getattr(short_trainers, f"{name}_short")(plans, configuration, fold, dataset_json, device)
    trainer.logger.plot_progress_png = lambda folder: None  # two seconds an epoch
    trainer.run_training()
    return trainer


def test_cases(trainer, raw: Path, count: int | None) -> dict[str, tuple[torch.Tensor, np.ndarray]]:
    """Case -> (image (C, D, H, W), label (D, H, W), -1 outside the body), both preprocessed."""
    configuration, ending = trainer.configuration_manager, trainer.dataset_json["file_ending"]
    cases = {}
    if trainer.fold != "all":
        dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, trainer.do_split()[1][:count])
        for case in dataset.identifiers:
            image, segmentation, *_ = dataset.load_case(case)
            cases[case] = torch.from_numpy(image[:]).float(), np.asarray(segmentation[0])
        return cases
    for label in sorted((raw / "labelsTs").glob(f"*{ending}"))[:count]:
        case = label.name.removesuffix(ending)
        files = sorted(str(f) for f in (raw / "imagesTs").glob(f"{case}_*{ending}"))
        image, segmentation, _ = configuration.preprocessor_class(verbose=False).run_case(
            files, str(label), trainer.plans_manager, configuration, trainer.dataset_json)
        cases[case] = torch.from_numpy(image).float(), np.asarray(segmentation[0])
    return cases


def score_segmentation(predicted: np.ndarray, label: np.ndarray, trainer) -> Scores:
    """Means over labels or regions that are in the reference or in the prediction; and each one's Dice, NaN if not."""
    manager, inside = trainer.label_manager, label >= 0
    wanted = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    names = [name for name in trainer.dataset_json["labels"] if name not in ("background", "ignore")]
    label, predicted = (np.where(inside, x, 0) for x in (label, predicted))
    found = {name: segmentation_scores(label, predicted, w, trainer.configuration_manager.spacing, tolerance_mm=1)
             for name, w in zip(names, wanted, strict=True)}
    overall = {score: float(np.nanmean([scores[score] for scores in found.values()])) for score in ("Dice", "HD95")}
    return overall | {f"Dice {name}": scores["Dice"] for name, scores in found.items()}


def score_fused(fused: torch.Tensor, clean: torch.Tensor, seen: torch.Tensor, present: torch.Tensor,
                inside: torch.Tensor, reference: int) -> Scores:
    """Restoration and fusion of the fused image, and of what it has to be better than.

    fused (D, H, W); clean, seen (C, D, H, W): the case before and after the degradation; all z-scores.
    present (C,): False for a modality that was taken away.
    """
    scores = {}
    for name, image in (("restored", fused), ("input", seen[reference])):
        if name == "restored" or (present[reference] and not torch.equal(image, clean[reference])):
            scores |= {f"{name} {k}": v for k, v in restoration_scores(image, clean[reference], inside).items()}
    mask = inside.numpy()
    images = {"fused": to_unit_range(fused.numpy(), mask),
              "average": fuse("average", [to_unit_range(image, mask) for image in seen[present].numpy()], mask)}
    sources = [to_unit_range(image, mask) for image in clean.numpy()]
    for name, found in fusion_scores(images, sources, mask).items():
        scores |= {f"{name} {metric}": found[metric] for metric in ("Qabf", "VIF", "Q_MI")}
    return scores


@torch.inference_mode()
def predict(trainer, image: torch.Tensor, present: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits (classes, D, H, W) and, of an RMR network, the fused image (1, D, H, W).

    image (C, D, H, W), zeros where present (C,) is False.

    Patches overlap by a quarter, are weighted as by nnU-Net, and not mirrored. Several at a time: with a single small
    patch torch has no fast convolution on the CPU.
    """
    network = trainer.network.eval()

    def forward(patches: torch.Tensor) -> dict[str, torch.Tensor]:
        if not hasattr(trainer, "rmrnet"):
            return {"logits": network(patches)}
        out = network(patches, outputs=("logits", "fused"), presence=None if present.all() else present[None])
        return {"logits": out.logits, "fused": out.fused}

    predicted = sliding_window_inference(
        image[None].to(trainer.device), trainer.configuration_manager.patch_size, sw_batch_size=4, predictor=forward,
        overlap=0.25, mode="gaussian", device=torch.device("cpu"))
    return {name: values[0].float() for name, values in predicted.items()}


def test(trainer, raw: Path, count: int | None, missing: bool) -> dict[str, dict[str, Scores]]:
    """Condition -> case -> scores."""
    trainer.set_deep_supervision_enabled(False)
    spacing = trainer.configuration_manager.spacing
    channels = channel_names(trainer.dataset_json)
    without = [f"{WITHOUT}{name}" for name in channels] if missing else []
    scores = {condition: {} for condition in (CLEAN, *DEGRADATIONS, *without)}
    for number, (case, (image, label)) in enumerate(test_cases(trainer, raw, count).items()):
        inside = torch.from_numpy(label >= 0)
        body = torch.from_numpy(body_mask(image.numpy()))
        for condition, of_cases in scores.items():
            present = torch.tensor([condition != f"{WITHOUT}{name}" for name in channels])
            if condition in DEGRADATIONS:
                seen = degrade_case(image, inside, spacing, seed=number, probabilities={condition: 1.0})
            else:
                seen = image * present.reshape(-1, 1, 1, 1)
            predicted = predict(trainer, seen, present)
            segmentation = trainer.label_manager.convert_logits_to_segmentation(predicted["logits"])
            of_cases[case] = score_segmentation(np.asarray(segmentation), label, trainer)
            if "fused" in predicted:
                of_cases[case] |= score_fused(predicted["fused"][0], image, seen, present, body,
                                              trainer.reference)
    return scores


def means(out: Path) -> pd.DataFrame:
    """Means over cases, a row for every trainer, seed and condition: of OUT's JSON files, else of its means.csv."""
    rows = []
    for file in sorted(out.glob("*_*.json")):
        trainer, seed = file.stem.rsplit("_", 1)
        result = json.loads(file.read_text())
        rows += [{"trainer": trainer, "seed": int(seed), "condition": condition, "cases": len(cases),
                  "training_seconds": result["seconds_training"], **pd.DataFrame(cases.values()).mean()}
                 for condition, cases in result["scores"].items()]
    found = pd.DataFrame(rows, columns=None if rows else [*RUN, "condition"])
    if (out / "means.csv").exists():
        found = pd.concat((found, pd.read_csv(out / "means.csv")))
    return found.drop_duplicates([*RUN, "condition"])


def report(found: pd.DataFrame, trainers: list[str], seeds: list[int], cross_validated: bool = False) -> None:
    found = found[found.trainer.isin(trainers) & found.seed.isin(seeds)]
    if cross_validated:
        found = found.assign(seed=found.seed % FOLDS)  # several trainings of a fold count as their mean
    without = tuple(c for c in found.condition.unique() if c.startswith(WITHOUT))
    groups = GROUPS | ({"one modality missing": without} | {c: (c,) for c in without} if without else {})
    of_labels = {score: SCORES["Dice"] for score in found if score.startswith("Dice ")}
    for score, digits in (SCORES | of_labels).items():
        if score not in found:
            continue
        scored = found.dropna(subset=score)
        first = next((t for t in trainers if t in set(scored.trainer)), None)
        print(f"\n{score}\n\n| test images | trainer | mean | of every seed | difference to {first} |\n"
              "|---|---|---|---|---|")
        for group, conditions in groups.items():
            of_group = found[found.condition.isin(conditions)]
            for name in ("input", "average"):
                beside = f"{name} {score.split()[-1]}"
                if beside in found and not of_group[beside].dropna().empty:
                    print(f"| {group} | *{name}* | {of_group[beside].mean():.{digits}f} | | |")
            of_runs = of_group.groupby(RUN)[score].mean().dropna()
            for trainer in (t for t in trainers if t in of_runs.index):
                of_seeds = of_runs[trainer]
                differences = (of_seeds - of_runs[first]).dropna().tolist() if first in of_runs.index else []
                print(f"| {group} | {trainer} | {of_seeds.mean():.{digits}f} | "
                      + " ".join(f"{v:.{digits}f}" for v in of_seeds) + " | "
                      + (interval(differences, digits) if differences and trainer != first else "") + " |")
    print()
    seconds = found.groupby("trainer").training_seconds.median()
    for trainer in (t for t in trainers if t in seconds.index):
        print(f"{trainer}: {seconds[trainer]:.0f} s of training, median")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", dest="dataset", required=True, help="its full name, DatasetXXX_Name")
    parser.add_argument("-c", dest="configuration", required=True)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--trainers", nargs="+", required=True, help="the first is what the others are compared with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=300, help="of the whole training")
    parser.add_argument("--test_cases", type=int, help="this many of the test cases, not all")
    parser.add_argument("--settings", type=json.loads, help="of RMR for all trainers that have them, as JSON")
    parser.add_argument("--missing", action="store_true", help="also with every single modality missing")
    parser.add_argument("--cross_validate", action="store_true",
                        help="the last digit of a seed is also the fold that is trained, whose validation cases are "
                             "the test cases: 3, 13 and 23 are three trainings of fold 3")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--part", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ |= {"COMPARE_EPOCHS": str(args.epochs), "COMPARE_ITERATIONS": str(args.iterations // args.epochs),
                   "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"}
    preprocessed = Path(os.environ["nnUNet_preprocessed"], args.dataset)
    done = set(means(args.out)[RUN].itertuples(index=False, name=None))
    jobs = [(seed, trainer) for seed in args.seeds for trainer in args.trainers]
    for number, (seed, name) in enumerate(jobs):
        file = args.out / f"{name}_{seed}.json"
        if number % args.parts != args.part or file.exists() or (name, seed) in done:
            continue
        print(f"seed {seed}: {name}", flush=True)
        os.environ["nnUNet_rmr_seed"] = str(seed)
        os.environ["nnUNet_results"] = str(args.out / f"models_{seed}")
        plans = json.loads((preprocessed / "nnUNetPlans.json").read_text()) | {"continue_training": False}
        if args.settings:
            plans["rmr"] = args.settings
        start = time.time()
        trainer = train(name, plans, args.configuration, seed % FOLDS if args.cross_validate else "all",
                        json.loads((preprocessed / "dataset.json").read_text()), torch.device(args.device))
        seconds = time.time() - start
        result = {"seconds_training": seconds, "arguments": {k: str(v) for k, v in vars(args).items()},
                  "scores": test(trainer, Path(os.environ["nnUNet_raw"], args.dataset), args.test_cases, args.missing)}
        with replacing(file) as temporary:
            Path(temporary).write_text(json.dumps(result, indent=1))
    found = means(args.out)
    with replacing(args.out / "means.csv") as temporary:
        found.sort_values([*RUN, "condition"]).to_csv(temporary, index=False, float_format="%.5g")
    report(found, args.trainers, args.seeds, args.cross_validate)


if __name__ == "__main__":
    main()
