"""Do the trainers differ? A comparison without leaving the process or the network's grid, for machines without a GPU.

    python benchmarks/quick_compare.py -d Dataset999_Phantom -c 3d_small -o OUT --seeds 0 1 2 --iterations 300 \\
        --trainers nnUNetTrainer nnUNetTrainer_RMRDegradations nnUNetTrainerRMR

Every trainer of short_trainers/ named here is trained on all training cases, once per seed, and segments the test cases
(imagesTs, labelsTs), which no training has seen: clean, and with every modality degraded by each kind of
nnunetv2_rmr.degradations, drawn as in training and the same for all models. Dice of every case is taken on the
preprocessed grid, mean over labels or regions. compare_trainers.py does the same by nnU-Net's commands on the scans'
own grid, with the benchmark's corruptions; it takes several times as long.

Writes OUT/TRAINER_SEED.json as soon as one is done, goes on where it was stopped, and prints a table of what is there:
mean Dice over cases and seeds, and the difference to the first trainer with the 95 % interval of a t-test over seeds.
One thread each by default: start as many as there are cores, with --parts and --part.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from compare_trainers import HERE, interval
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_rmr.degradations.degrade import DEGRADATIONS, degrade_case

CLEAN = "clean"


def train(name: str, plans: dict, configuration: str, dataset_json: dict, device: torch.device):
    sys.path.insert(0, str(HERE / "short_trainers"))
    import short_trainers

    trainer = getattr(short_trainers, f"{name}_short")(plans, configuration, "all", dataset_json, device)
    trainer.logger.plot_progress_png = lambda folder: None  # two seconds an epoch
    trainer.run_training()
    return trainer


def test_cases(trainer, raw: Path) -> dict[str, tuple[torch.Tensor, np.ndarray]]:
    """Case -> (image (C, D, H, W), label (D, H, W), -1 outside the body), both preprocessed."""
    configuration, ending = trainer.configuration_manager, trainer.dataset_json["file_ending"]
    cases = {}
    for label in sorted((raw / "labelsTs").glob(f"*{ending}")):
        case = label.name.removesuffix(ending)
        files = sorted(str(f) for f in (raw / "imagesTs").glob(f"{case}_*{ending}"))
        image, segmentation, _ = configuration.preprocessor_class(verbose=False).run_case(
            files, str(label), trainer.plans_manager, configuration, trainer.dataset_json)
        cases[case] = torch.from_numpy(image).float(), np.asarray(segmentation[0])
    return cases


def dice(predicted: np.ndarray, label: np.ndarray, trainer) -> float:
    """Mean over labels or regions that are in the reference or in the prediction."""
    manager, scores = trainer.label_manager, []
    for wanted in manager.foreground_regions if manager.has_regions else manager.foreground_labels:
        a, b = (np.isin(x, wanted) for x in (predicted, label))
        if a.any() or b.any():
            scores.append(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))
    return statistics.fmean(scores)


def test(trainer, raw: Path) -> dict[str, dict[str, float]]:
    """Condition -> case -> Dice."""
    predictor = nnUNetPredictor(tile_step_size=0.75, use_mirroring=False, device=trainer.device, allow_tqdm=False,
                                perform_everything_on_device=trainer.device.type == "cuda")
    trainer.set_deep_supervision_enabled(False)
    predictor.manual_initialization(trainer.network, trainer.plans_manager, trainer.configuration_manager,
                                    [trainer.network.state_dict()], trainer.dataset_json, type(trainer).__name__, None)
    scores = {condition: {} for condition in (CLEAN, *DEGRADATIONS)}
    for number, (case, (image, label)) in enumerate(test_cases(trainer, raw).items()):
        inside = torch.from_numpy(label >= 0)
        for condition, of_cases in scores.items():
            seen = image if condition == CLEAN else degrade_case(
                image, inside, trainer.configuration_manager.spacing, seed=number, probabilities={condition: 1.0})
            logits = predictor.predict_logits_from_preprocessed_data(seen)
            predicted = trainer.label_manager.convert_logits_to_segmentation(logits)
            of_cases[case] = dice(np.where(label >= 0, np.asarray(predicted), 0), label, trainer)
    return scores


def report(out: Path, trainers: list[str], seeds: list[int]) -> None:
    done = {(t, s): json.loads(f.read_text()) for t in trainers for s in seeds
            if (f := out / f"{t}_{s}.json").exists()}
    print("| test images | trainer | Dice, mean of seeds | seeds | difference to the first |\n|---|---|---|---|---|")
    for condition in (CLEAN, *DEGRADATIONS):
        means = {key: statistics.fmean(result["dice"][condition].values()) for key, result in done.items()}
        for trainer in trainers:
            of_seeds = {s: means[trainer, s] for s in seeds if (trainer, s) in means}
            if not of_seeds:
                continue
            differences = [v - means[trainers[0], s] for s, v in of_seeds.items() if (trainers[0], s) in means]
            print(f"| {condition} | {trainer} | {statistics.fmean(of_seeds.values()):.3f} | "
                  + " ".join(f"{v:.3f}" for v in of_seeds.values()) + " | "
                  + (interval(differences) if differences and trainer != trainers[0] else "") + " |")
    for trainer in trainers:
        seconds = [result["seconds_training"] for (t, _), result in done.items() if t == trainer]
        if seconds:
            print(f"{trainer}: {statistics.median(seconds):.0f} s of training, median of {len(seconds)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", dest="dataset", required=True, help="its full name, DatasetXXX_Name")
    parser.add_argument("-c", dest="configuration", required=True)
    parser.add_argument("-o", dest="out", type=Path, required=True)
    parser.add_argument("--trainers", nargs="+", required=True, help="the first is what the others are compared with")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=300, help="of the whole training")
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
    jobs = [(seed, trainer) for seed in args.seeds for trainer in args.trainers]
    for number, (seed, name) in enumerate(jobs):
        file = args.out / f"{name}_{seed}.json"
        if number % args.parts != args.part or file.exists():
            continue
        print(f"seed {seed}: {name}", flush=True)
        os.environ["nnUNet_rmr_seed"] = str(seed)
        os.environ["nnUNet_results"] = str(args.out / f"models_{seed}")
        plans = json.loads((preprocessed / "nnUNetPlans.json").read_text()) | {"continue_training": False}
        start = time.time()
        trainer = train(name, plans, args.configuration, json.loads((preprocessed / "dataset.json").read_text()),
                        torch.device(args.device))
        seconds = time.time() - start
        result = {"seconds_training": seconds, "arguments": {k: str(v) for k, v in vars(args).items()},
                  "dice": test(trainer, Path(os.environ["nnUNet_raw"], args.dataset))}
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(result, indent=1))
        temporary.replace(file)
    report(args.out, args.trainers, args.seeds)


if __name__ == "__main__":
    main()
