"""Do the trainers differ? A comparison without leaving the process or the network's grid, for machines without a GPU.

    python benchmarks/quick_compare.py -d Dataset999_Phantom -c 3d_small -o OUT --seeds 0 1 2 --iterations 300 \\
        --trainers nnUNetTrainer nnUNetTrainer_RMRDegradations nnUNetTrainerRMR
    python benchmarks/quick_compare.py --data sarcoma --cross_validate -o OUT --seeds 0 1 2 3 4 --trainers ...

Every trainer of short_trainers/ named here is trained on all training cases, once per seed, and predicts the test cases
(imagesTs, labelsTs), which no training has seen: clean, and with every modality degraded by each kind of
nnunetv2_rmr.degradations, drawn as in training and the same for all models. With --cross_validate a seed trains a fold
and predicts its validation cases. --data takes real scans of ../shared/data, prepared by real_dataset.py if they are
not yet. With --missing also with each modality taken away: zeros in its place, left out of the fused image as by
nnUNetv2_rmr_predict --missing; and, beside validation cases, the test cases, which really lack one.

All scores are taken on the preprocessed grid. Segmentation: Dice and HD95 (mm), mean over labels or regions. Fused
image, restoration: PSNR inside the body and SSIM against the gradient fusion of the clean case, beside it the same of
the gradient fusion of the degraded case ("input"); of the published form against the reference modality, beside it the
degraded one. Fused image, as a fusion of the clean modalities: smallest own edges, Qabf and VIF over modalities,
smallest contrast of a label in proportion to the modality that shows it best, and whether it is a copy of a modality
(docs/fusion_metrics.md); beside it those of copies of single modalities (of degraded cases only of the reference
modality) and of classical fusions, all of what the network saw.
compare_trainers.py compares segmentations by nnU-Net's commands on the scans' own grid, with the benchmark's
degradations; it takes several times as long.

Writes OUT/TRAINER_SEED.json as soon as one is done, OUT/cases.csv with every case's scores at the end, and prints
tables of what is there: means, and the difference to the first trainer with the 95 % interval of a t-test over seeds,
each the mean over its cases; with --cross_validate over patients, each the mean over its trainings. What OUT has
already, as JSON or in cases.csv (as in benchmarks/results/), is not done again; a training that was stopped goes on
from its last checkpoint. One thread each by default: start as many as there are cores, with --parts and --part.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from compare_trainers import HERE, interval
from monai.inferers import sliding_window_inference
from real_dataset import CONFIGURATION, REAL_DATA, make

from nnunetv2_rmr.degradations.degrade import DEGRADATIONS, degrade_case
from nnunetv2_rmr.evaluation.fusion_baselines import COPY
from nnunetv2_rmr.evaluation.fusion_baselines.fuse import fuse
from nnunetv2_rmr.evaluation.fusion_metrics.contrast import LesionContrast, relative_contrast
from nnunetv2_rmr.evaluation.fusion_metrics.intensities import to_unit_range
from nnunetv2_rmr.evaluation.fusion_metrics.scores import fusion_scores
from nnunetv2_rmr.evaluation.fusion_metrics.similarity import restoration_scores
from nnunetv2_rmr.evaluation.segmentation_metrics import segmentation_scores
from nnunetv2_rmr.files.atomic import replacing
from nnunetv2_rmr.fusion.body import body_of_preprocessed
from nnunetv2_rmr.fusion.fused_image import fused_image, fusion_target
from nnunetv2_rmr.networks.fusing import FusingNetwork, unwrapped
from nnunetv2_rmr.settings import channel_names

CLEAN = "clean"
WITHOUT = "without "  # the modality that is named then
LACKING = "lacking one"  # the case as it was found
GROUPS = {CLEAN: (CLEAN,), "noise, blur, fourier": ("noise", "blur", "fourier"),
          "the other kinds": tuple(kind for kind in DEGRADATIONS if kind not in ("noise", "blur", "fourier")),
          **{kind: (kind,) for kind in DEGRADATIONS}}
FUSION = ("smallest own edges", "smallest Qabf", "smallest VIF")
CLASSICAL = ("average", "guided", "gradient")
SCORES = {"Dice": 3, "HD95": 1, "restored PSNR": 2, "restored SSIM": 3, **{f"fused {metric}": 3 for metric in FUSION},
          "fused smallest contrast": 2, "fused is a copy": 2}  # and how many decimals are printed
RUN = ["trainer", "seed"]
FOLDS = 10  # at most
Scores = dict[str, float]
Cases = dict[str, tuple[torch.Tensor, np.ndarray]]  # image (C, D, H, W), label (D, H, W), -1 outside, preprocessed


def train(name: str, plans: dict, configuration: str, fold: int | str, dataset_json: dict, device: torch.device,
          bf16: bool):
    sys.path.insert(0, str(HERE / "short_trainers"))
    import short_trainers

    trainer = getattr(short_trainers, f"{name}_short")(plans, configuration, fold, dataset_json, device)
    trainer.logger.plot_progress_png = lambda folder: None  # two seconds an epoch
    trainer.initialize()
    if bf16:
        in_bfloat16(trainer.network)
    for checkpoint in ("checkpoint_final.pth", "checkpoint_latest.pth"):
        if (file := Path(trainer.output_folder, checkpoint)).exists():
            trainer.load_checkpoint(str(file))
            break
    if trainer.current_epoch < trainer.num_epochs:
        trainer.run_training()
    return trainer


def in_bfloat16(network: torch.nn.Module) -> None:
    """From now on the network, on a CPU, computes in bfloat16 what torch.autocast does; what it returns is float32."""
    forward = network.forward

    def float32(outputs):
        if outputs is None or isinstance(outputs, torch.Tensor):
            return outputs if outputs is None else outputs.float()
        found = [float32(output) for output in outputs]
        return type(outputs)(*found) if hasattr(outputs, "_fields") else found

    def run(*args, **kwargs):
        with torch.autocast("cpu", torch.bfloat16):
            outputs = forward(*args, **kwargs)
        return float32(outputs)

    network.forward = run


def training_seconds(trainer) -> float:
    log = trainer.logger.local_logger.my_fantastic_logging
    return sum(log["epoch_end_timestamps"]) - sum(log["epoch_start_timestamps"])


def validation_cases(trainer, count: int | None) -> Cases:
    """Of the trainer's fold."""
    cases = {}
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, trainer.do_split()[1][:count])
    for case in dataset.identifiers:
        image, segmentation, *_ = dataset.load_case(case)
        cases[case] = torch.from_numpy(image[:]).float(), np.asarray(segmentation[0])
    return cases


def test_cases(trainer, raw: Path, count: int | None) -> Cases:
    """Of imagesTs and labelsTs."""
    configuration, ending = trainer.configuration_manager, trainer.dataset_json["file_ending"]
    cases = {}
    for label in sorted((raw / "labelsTs").glob(f"*{ending}"))[:count]:
        case = label.name.removesuffix(ending)
        files = sorted(str(f) for f in (raw / "imagesTs").glob(f"{case}_*{ending}"))
        image, segmentation, _ = configuration.preprocessor_class(verbose=False).run_case(
            files, str(label), trainer.plans_manager, configuration, trainer.dataset_json)
        cases[case] = torch.from_numpy(image).float(), np.asarray(segmentation[0])
    return cases


def held_out_cases(trainer, raw: Path, count: int | None) -> Cases:
    """What a trainer is tested on: its fold, or the test cases if it has learned from all training cases."""
    return test_cases(trainer, raw, count) if trainer.fold == "all" else validation_cases(trainer, count)


def wanted_labels(trainer) -> dict[str, int | tuple[int, ...]]:
    """Value, or values of a region, by name."""
    manager = trainer.label_manager
    names = [name for name in trainer.dataset_json["labels"] if name not in ("background", "ignore")]
    return dict(zip(names, manager.foreground_regions if manager.has_regions else manager.foreground_labels,
                    strict=True))


def score_segmentation(predicted: np.ndarray, label: np.ndarray, trainer) -> Scores:
    """Means over labels or regions that are in the reference or in the prediction; and each one's Dice, NaN if not."""
    inside = label >= 0
    label, predicted = (np.where(inside, x, 0) for x in (label, predicted))
    found = {name: segmentation_scores(label, predicted, w, trainer.configuration_manager.spacing, tolerance_mm=1)
             for name, w in wanted_labels(trainer).items()}
    overall = {score: float(np.nanmean([scores[score] for scores in found.values()])) for score in ("Dice", "HD95")}
    return overall | {f"Dice {name}": scores["Dice"] for name, scores in found.items()}


@dataclass(frozen=True)
class CleanCase:
    """What a case's fused images are scored against."""

    images: torch.Tensor  # (C, D, H, W), z-scores
    body: torch.Tensor  # (D, H, W), boolean
    lesions: Mapping[str, np.ndarray]  # by name of the label or region, boolean
    spacing: Sequence[float]
    channels: Sequence[str]
    reference: int
    num_images: int  # of the network, see FusingNetwork

    @cached_property
    def target(self) -> torch.Tensor:
        """What the fused image aims at, (D, H, W)."""
        return self._fused(self.images)

    def _fused(self, modalities: torch.Tensor) -> torch.Tensor:
        return fusion_target(modalities, self.num_images, self.spacing, self.reference, modalities.flatten(1).any(1))

    def score_restoration(self, fused: torch.Tensor, seen: torch.Tensor) -> Scores:
        """fused (D, H, W); seen (C, D, H, W): the case after the degradation."""
        clean, scores = self.target, {}
        for name, image in (("restored", fused), ("input", self._fused(seen))):
            constant, given = image.min() == image.max(), torch.equal(image, clean)  # its modality is missing; clean
            if name == "restored" or not (constant or given):
                scores |= {f"{name} {metric}": value
                           for metric, value in restoration_scores(image, clean, self.body).items()}
        return scores

    def score_fusion(self, fused: torch.Tensor, seen: torch.Tensor, present: torch.Tensor) -> Scores:
        """As score_restoration, and present (C,): False for a modality that was taken away.

        Of the fused image and, of what the network saw, of copies (the reference modality and those that are clean)
        and of classical fusions.
        """
        mask, kept = self.body.numpy(), present.nonzero()[:, 0].tolist()
        sources = [to_unit_range(image, mask) for image in self.images.numpy()]
        shown = {i: sources[i] if torch.equal(seen[i], self.images[i]) else to_unit_range(seen[i].numpy(), mask)
                 for i in kept}
        images = {"fused": fused.numpy()}
        for method in CLASSICAL:
            images[method] = fuse(method, list(shown.values()), mask, self.spacing,
                                  kept.index(self.reference) if self.reference in kept else -1)
        images = {name: to_unit_range(image, mask) for name, image in images.items()}
        images |= {COPY + self.channels[i]: image for i, image in shown.items()
                   if i == self.reference or image is sources[i]}
        contrast = LesionContrast({name: lesion for name, lesion in self.lesions.items() if lesion.any()}, mask,
                                  self.spacing)
        of_sources, scores = [contrast(source) for source in sources], {}
        for name, found in fusion_scores(images, sources, mask).items():
            scores |= {f"{name} {metric}": found.metrics[metric] for metric in FUSION}
            scores |= {f"{name} own edges {channel}": of_source["own edges"]
                       for channel, of_source in zip(self.channels, found.sources)}
            relative = relative_contrast(contrast(images[name]), of_sources)
            scores[f"{name} smallest contrast"] = min(relative.values(), default=float("nan"))
            scores[f"{name} is a copy"] = float(found.copy_of is not None)
        return scores


@torch.inference_mode()
def predict(trainer, image: torch.Tensor, present: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits (classes, D, H, W) and, of an RMR network, its images (images, D, H, W) and the fused image (D, H, W).

    image (C, D, H, W), zeros where present (C,) is False.

    Patches overlap by a quarter, are weighted as by nnU-Net, and not mirrored. Several at a time: with a single small
    patch torch has no fast convolution on the CPU.
    """
    network = trainer.network.eval()

    def forward(patches: torch.Tensor) -> dict[str, torch.Tensor]:
        if not isinstance(unwrapped(network), FusingNetwork):
            return {"logits": network(patches)}
        logits, images = network(patches, images=True)
        return {"logits": logits, "images": images}

    predicted = sliding_window_inference(
        image[None].to(trainer.device), trainer.configuration_manager.patch_size, sw_batch_size=4, predictor=forward,
        overlap=0.25, mode="gaussian", device=torch.device("cpu"))
    predicted = {name: values[0].float() for name, values in predicted.items()}
    if "images" in predicted:
        predicted["fused"] = fused_image(predicted["images"], image, trainer.configuration_manager.spacing,
                                         trainer.reference, present)
    return predicted


def test(trainer, raw: Path, count: int | None, missing: bool) -> dict[str, dict[str, Scores]]:
    """Condition -> case -> scores."""
    trainer.set_deep_supervision_enabled(False)
    spacing = list(trainer.configuration_manager.spacing)
    channels = channel_names(trainer.dataset_json)
    network = unwrapped(trainer.network)
    fuses = isinstance(network, FusingNetwork)
    without = [f"{WITHOUT}{name}" for name in channels] if missing else []
    scores = {condition: {} for condition in (CLEAN, *DEGRADATIONS, *without)}
    for number, (case, (image, label)) in enumerate(held_out_cases(trainer, raw, count).items()):
        inside = torch.from_numpy(label >= 0)
        lesions = {name: np.isin(label, wanted) for name, wanted in wanted_labels(trainer).items()}
        clean = CleanCase(image, torch.from_numpy(body_of_preprocessed(image.numpy())), lesions, spacing, channels,
                          trainer.reference, network.num_images) if fuses else None
        for condition, of_cases in scores.items():
            present = torch.tensor([condition != f"{WITHOUT}{name}" for name in channels])
            if condition in DEGRADATIONS:
                seen = degrade_case(image, inside, spacing, seed=number, probabilities={condition: 1.0})
            else:
                seen = image * present.reshape(-1, 1, 1, 1)
            predicted = predict(trainer, seen, present)
            segmentation = trainer.label_manager.convert_logits_to_segmentation(predicted["logits"])
            of_cases[case] = score_segmentation(np.asarray(segmentation), label, trainer)
            if fuses:
                fused = predicted["fused"]
                of_cases[case] |= clean.score_restoration(fused, seen) | clean.score_fusion(fused, seen, present)
    if missing and trainer.fold != "all":
        scores[LACKING] = {}
        for case, (image, label) in test_cases(trainer, raw, count).items():
            predicted = predict(trainer, image, image.flatten(1).any(1))
            segmentation = trainer.label_manager.convert_logits_to_segmentation(predicted["logits"])
            scores[LACKING][case] = score_segmentation(np.asarray(segmentation), label, trainer)
    return scores


def every_case(out: Path) -> pd.DataFrame:
    """A row for every trainer, seed, condition and case, of OUT's JSON files and of its cases.csv."""
    rows = []
    for file in sorted(out.glob("*_*.json")):
        trainer, seed = file.stem.rsplit("_", 1)
        result = json.loads(file.read_text())
        rows += [{"trainer": trainer, "seed": int(seed), "condition": condition, "case": case,
                  "training_seconds": result["seconds_training"], **scores}
                 for condition, cases in result["scores"].items() for case, scores in cases.items()]
    found = pd.DataFrame(rows, columns=None if rows else [*RUN, "condition", "case"])
    if (out / "cases.csv").exists():
        stored = pd.read_csv(out / "cases.csv", dtype={"case": str})
        have = set(found[RUN].itertuples(index=False, name=None))
        stored = stored[[run not in have for run in stored[RUN].itertuples(index=False, name=None)]]
        found = pd.concat((found, stored)) if len(found) else stored
    return found


def report(found: pd.DataFrame, trainers: list[str], seeds: list[int], cross_validated: bool = False) -> None:
    """Tables of what every_case returns. Units of the means and intervals: seeds, or patients if cross-validated."""
    found = found[found.trainer.isin(trainers) & found.seed.isin(seeds)]
    unit = "case" if cross_validated else "seed"
    without = tuple(c for c in found.condition.unique() if c.startswith(WITHOUT))
    groups = GROUPS | ({"one modality missing": without} | {c: (c,) for c in without} if without else {})
    groups |= {LACKING: (LACKING,)}
    of_each = {c: SCORES["Dice"] for c in found if c.startswith(("Dice ", "fused own edges "))}
    for score, digits in (SCORES | of_each).items():
        if score not in found:
            continue
        # over a seed's cases, or a patient's trainings; then over a group's conditions
        of_conditions = found.groupby(["trainer", unit, "condition"], sort=False)[score].mean().dropna().reset_index()
        first = next((t for t in trainers if t in set(of_conditions.trainer)), None)
        print(f"\n{score}\n\n| test images | trainer | mean | of every {'patient' if cross_validated else 'seed'} "
              f"| difference to {first} |\n|---|---|---|---|---|")
        kind, _, metric = score.partition(" ")
        beside = [c for c in found if c.endswith(f" {metric}") and kind in ("restored", "fused") and c != score]
        for group, conditions in groups.items():
            of_group = found[found.condition.isin(conditions)]
            for column in beside:
                name, means = column.removesuffix(metric).strip(), of_group.groupby("trainer")[column].mean().dropna()
                if kind == "restored" and means.round(digits).nunique() > 1:  # the published form's is another one
                    for trainer, mean in means.items():
                        print(f"| {group} | *{name} of {trainer}* | {mean:.{digits}f} | | |")
                elif len(means):
                    print(f"| {group} | *{name}* | {of_group[column].mean():.{digits}f} | | |")
            of_units = of_conditions[of_conditions.condition.isin(conditions)].groupby(["trainer", unit])[score].mean()
            for trainer in (t for t in trainers if t in of_units.index):
                values = of_units[trainer]
                differences = (values - of_units[first]).dropna().tolist() if first in of_units.index else []
                print(f"| {group} | {trainer} | {values.mean():.{digits}f} | {listed(values, digits)} | "
                      + (f"{interval(differences, digits)} (n = {len(differences)})"
                         if differences and trainer != first else "") + " |")
    print()
    seconds = found.groupby("trainer").training_seconds.median()
    for trainer in (t for t in trainers if t in seconds.index):
        print(f"{trainer}: {seconds[trainer]:.0f} s of training, median")


def listed(values: pd.Series, digits: int) -> str:
    if len(values) > FOLDS:
        return f"{values.min():.{digits}f} to {values.max():.{digits}f}, n = {len(values)}"
    return " ".join(f"{v:.{digits}f}" for v in values)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", dest="dataset", help="its full name, DatasetXXX_Name")
    parser.add_argument("-c", dest="configuration", default=CONFIGURATION)
    parser.add_argument("--data", choices=REAL_DATA, help="instead of -d and -c: real scans, see real_dataset.py")
    parser.add_argument("--root", type=Path, help="of --data: where it is, or is written; by default OUT/DATA")
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=300, help="of the whole training")
    parser.add_argument("--settings", type=json.loads, help="of RMR for all trainers that have them, as JSON")
    parser.add_argument("--cross_validate", action="store_true",
                        help="the last digit of a seed is also the fold that is trained, whose validation cases are "
                             "the test cases: 3, 13 and 23 are three trainings of fold 3")
    parser.add_argument("--bf16", action="store_true",
                        help="networks in bfloat16: worth it only where `grep amx_bf16 /proc/cpuinfo` finds something")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Of a parser with the arguments above; the data set is made, if it is not there, and named in `dataset`."""
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.data:
        make(args.data, args.root or args.out / args.data, configuration=args.configuration)
        args.dataset = REAL_DATA[args.data].dataset
    elif not args.dataset:
        parser.error("-d or --data is needed")
    os.environ |= {"COMPARE_EPOCHS": str(args.epochs), "COMPARE_ITERATIONS": str(args.iterations // args.epochs),
                   "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"}
    return args


def trained(name: str, seed: int, args: argparse.Namespace):
    """The trainer of that name with the weights of its training, which OUT has or which is done now."""
    os.environ |= {"nnUNet_rmr_seed": str(seed), "nnUNet_results": str(args.out / f"models_{seed}")}
    preprocessed = Path(os.environ["nnUNet_preprocessed"], args.dataset)
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    if args.settings:
        plans["rmr"] = args.settings
    return train(name, plans, args.configuration, seed % FOLDS if args.cross_validate else "all",
                 json.loads((preprocessed / "dataset.json").read_text()), torch.device(args.device), args.bf16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_arguments(parser)
    parser.add_argument("--trainers", nargs="+", required=True, help="the first is what the others are compared with")
    parser.add_argument("--test_cases", type=int, help="this many of the test cases, not all")
    parser.add_argument("--missing", action="store_true", help="also with every single modality missing")
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--part", type=int, default=0)
    args = parse(parser)
    done = set(every_case(args.out)[RUN].itertuples(index=False, name=None))
    jobs = [(seed, trainer) for seed in args.seeds for trainer in args.trainers]
    for number, (seed, name) in enumerate(jobs):
        file = args.out / f"{name}_{seed}.json"
        if number % args.parts != args.part or file.exists() or (name, seed) in done:
            continue
        print(f"seed {seed}: {name}", flush=True)
        trainer = trained(name, seed, args)
        result = {"seconds_training": training_seconds(trainer),
                  "arguments": {k: str(v) for k, v in vars(args).items()},
                  "scores": test(trainer, Path(os.environ["nnUNet_raw"], args.dataset), args.test_cases, args.missing)}
        with replacing(file) as temporary:
            Path(temporary).write_text(json.dumps(result, indent=1))
    found = every_case(args.out)
    with replacing(args.out / "cases.csv") as temporary:
        found.sort_values([*RUN, "condition", "case"]).to_csv(temporary, index=False, float_format="%.4g")
    report(found, args.trainers, args.seeds, args.cross_validate)


if __name__ == "__main__":
    main()
