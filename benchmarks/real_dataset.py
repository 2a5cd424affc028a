"""Real scans for comparisons: imported, planned, preprocessed and split, with a small configuration for CPUs.

    python benchmarks/real_dataset.py sarcoma -o ROOT

brats2021, sarcoma or glioma, as they lie in ../shared/data beside the repository (never in it); quick_compare.py --data
does the same. Writes ROOT/nnUNet_raw, _preprocessed and _results with one configuration more than nnU-Net plans, batch
2, a PlainConvUNet of four stages: for CPUs 3d_small, voxels of at least 4 mm along every axis, one convolution a stage,
16 to 128 features, patches of up to 32^3; for GPUs 3d_medium, 3 mm, two convolutions, 32 to 256, 64^3. Cases that lack
a modality are named and become test cases (imagesTs, zeros for what they lack). Every case is a patient of its own, so
the five folds (of BraTS seven, each of one case) are folds of patients. Glioma has two more: 5 is trained on the
patients of hospital DU and tested on those of CS, 6 the other way round.
"""

import argparse
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from nnunetv2_rmr.datasets.importer import import_dataset
from nnunetv2_rmr.datasets.request import ImportRequest
from nnunetv2_rmr.demo.job import set_environment, threads_for_processes

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@dataclass(frozen=True)
class Small:
    """A configuration in proportion to nnU-Net's 3d_fullres."""

    least_mm: float
    features: tuple[int, ...]
    convolutions: int  # a stage
    largest_patch: int  # voxels an edge


CONFIGURATION = "3d_small"
CONFIGURATIONS = {CONFIGURATION: Small(4.0, (16, 32, 64, 128), 1, 32),
                  "3d_medium": Small(3.0, (32, 64, 128, 256), 2, 64)}


@dataclass(frozen=True)
class RealData:
    dataset_id: int
    name: str
    modalities: dict[str, str]  # file by channel
    label: str
    import_options: dict = field(default_factory=dict)
    folds: int = 5
    sites: tuple[str, ...] = ()  # two, in the cases' names

    @property
    def dataset(self) -> str:
        return f"Dataset{self.dataset_id}_{self.name}"


REAL_DATA = {
    "brats2021": RealData(
        996, "BraTS2021", {name: f"{name.lower()}.nii.gz" for name in ("T1", "T1ce", "T2", "FLAIR")}, "seg.nii.gz",
        {"label_map": {1: 2, 2: 1, 4: 3},
         "regions": {"whole_tumor": (1, 2, 3), "tumor_core": (2, 3), "enhancing_tumor": (3,)}}, folds=7),
    "sarcoma": RealData(997, "Sarcoma", {name: f"{name}.nii.gz" for name in ("CT", "PET", "MR_T1")}, "gtv.nii.gz",
                        {"labels": {"gtv": 1}}),
    "glioma": RealData(998, "Glioma", {name: f"{name}.nii.gz" for name in ("T1", "FLAIR", "T1ce")}, "lesion.nii.gz",
                       {"labels": {"lesion": 1}}, sites=("_CS_", "_DU_")),
}


def make(name: str, root: Path, source: Path | None = None, configuration: str = CONFIGURATION) -> None:
    """Data set `name` of REAL_DATA below `root`, which nnU-Net's paths then are; nothing is done where it is there.

    source: folder of its cases, by default SHARED/name. Made beside `root` and renamed, so that of several processes
    each finds it complete.
    """
    data = REAL_DATA[name]
    if not root.exists():
        temporary = root.with_name(f".{root.name}.{os.getpid()}")
        set_environment(temporary)
        checked = import_dataset(ImportRequest(
            source or SHARED / name, data.modalities, data.label, data.dataset_id, data.name,
            temporary / "nnUNet_raw", skip_bad_cases=True, **data.import_options))
        for case, problems in checked.skipped.items():
            print(f"not for training: {case}: {'; '.join(problems)}")
            _write_lacking(source or SHARED / name, case, data, temporary / "nnUNet_raw" / data.dataset)
        _plan_and_preprocess(data, configuration)
        try:
            temporary.rename(root)
        except OSError:  # another process was faster
            shutil.rmtree(temporary)
    set_environment(root)


def _write_lacking(source: Path, case: str, data: RealData, raw: Path) -> None:
    """As a test case, if it has a label and a modality; zeros stand for the others."""
    label = source / case / data.label
    there = [file for name in data.modalities.values() if (file := source / case / name).exists()]
    if not label.exists() or not there or "label_map" in data.import_options:
        return
    for folder in ("imagesTs", "labelsTs"):
        (raw / folder).mkdir(exist_ok=True)
    shutil.copy(label, raw / "labelsTs" / f"{case}.nii.gz")
    for channel, name in enumerate(data.modalities.values()):
        image = sitk.ReadImage(str(source / case / name if source / case / name in there else there[0]))
        if source / case / name not in there:
            image *= 0
        sitk.WriteImage(image, str(raw / "imagesTs" / f"{case}_{channel:04d}.nii.gz"))


def _plan_and_preprocess(data: RealData, configuration: str) -> None:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset, preprocess_dataset

    os.environ["nnUNet_n_proc_DA"] = "1"  # the planner can not do with 0
    with threads_for_processes():
        extractor = DatasetFingerprintExtractor(data.dataset_id, num_processes=1)
        extractor.show_progress_bar = False
        extractor.num_foreground_voxels_for_intensitystats = 1e6  # of 1e8
        extractor.run(overwrite_existing=True)
        plans, identifier = plan_experiment_dataset(data.dataset_id)
        file = Path(os.environ["nnUNet_preprocessed"], data.dataset, identifier + ".json")
        plans = json.loads(file.read_text())
        full = plans["configurations"]["3d_fullres"]
        plans["configurations"][configuration] = small_configuration(full, configuration)
        plans["rmr"] = {"panel_every": 0}
        file.write_text(json.dumps(plans, indent=4))
        preprocess_dataset(data.dataset_id, identifier, [configuration], [1], show_progress_bar=False)
    cases = sorted(f.name.split(".")[0] for f in Path(os.environ["nnUNet_raw"], data.dataset, "labelsTr").iterdir())
    (file.parent / "splits_final.json").write_text(json.dumps(splits(cases, data.folds, data.sites), indent=1))


def small_configuration(full: dict, name: str = CONFIGURATION) -> dict:
    """Of nnU-Net's 3d_fullres, for its plans."""
    small = CONFIGURATIONS[name]
    spacing = [max(small.least_mm, mm) for mm in full["spacing"]]
    size = [n * old / new for n, old, new in zip(full["median_image_size_in_voxels"], full["spacing"], spacing)]
    depth = len(small.features)
    multiple = 2 ** (depth - 1)
    arguments = full["architecture"]["arch_kwargs"] | {
        "n_stages": depth, "features_per_stage": small.features, "kernel_sizes": [[3, 3, 3]] * depth,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (depth - 1)], "n_conv_per_stage": [small.convolutions] * depth,
        "n_conv_per_stage_decoder": [small.convolutions] * (depth - 1)}
    return {"inherits_from": "3d_fullres", "data_identifier": f"nnUNetPlans_{name}", "spacing": spacing,
            "patch_size": [min(small.largest_patch, multiple * -int(-n // multiple)) for n in size], "batch_size": 2,
            "architecture": full["architecture"] | {"arch_kwargs": arguments}}


def splits(cases: list[str], folds: int, sites: tuple[str, ...] = ()) -> list[dict[str, list[str]]]:
    """splits_final.json: every `folds`-th case is in the same fold, so that each has cases of all hospitals; then a
    fold for every site, whose validation cases are all of it."""
    held_out = [cases[fold::folds] for fold in range(folds)]
    held_out += [[case for case in cases if site in case] for site in sites]
    return [{"train": [case for case in cases if case not in val], "val": val} for val in held_out]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=REAL_DATA)
    parser.add_argument("-o", dest="root", required=True, type=Path)
    parser.add_argument("-c", dest="configuration", choices=CONFIGURATIONS, default=CONFIGURATION)
    args = parser.parse_args()
    make(args.name, args.root, configuration=args.configuration)


if __name__ == "__main__":
    main()
