"""Scans without labels: imagesUn/ beside imagesTr/, preprocessed into a folder beside that of the labelled cases."""

import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_rmr.files.atomic import remove_leftovers, temporary_folder
from nnunetv2_rmr.files.dataset_json import read_dataset_json
from nnunetv2_rmr.files.input_check import check_array, check_files, files_of_cases, images_in
from nnunetv2_rmr.files.workers import over_cases
from nnunetv2_rmr.settings import channel_names

RAW_FOLDER = "imagesUn"
ENDINGS = (".pkl", "_seg.b2nd", ".b2nd")  # of a preprocessed case, the last one is what makes it a case for nnU-Net


def raw_folder(dataset_name: str) -> Path:
    return Path(os.environ["nnUNet_raw"], dataset_name, RAW_FOLDER)


def preprocessed_folder(dataset_name: str, data_identifier: str) -> Path:
    """data_identifier: of the configuration, whose labelled cases are in the folder of that name."""
    return Path(os.environ["nnUNet_preprocessed"], dataset_name, f"{data_identifier}_unlabelled")


def raw_cases(dataset_name: str, file_ending: str) -> set[str]:
    """Names of the cases in imagesUn/; none if the folder, or all of nnUNet_raw, is not on this machine."""
    if "nnUNet_raw" not in os.environ or not raw_folder(dataset_name).is_dir():
        return set()
    return {image[1] for image in images_in(raw_folder(dataset_name), file_ending)}


def unlabelled_dataset(dataset_name: str, data_identifier: str) -> nnUNetDatasetBlosc2 | None:
    """The preprocessed cases without labels; None if there are none."""
    folder = preprocessed_folder(dataset_name, data_identifier)
    found = nnUNetDatasetBlosc2(str(folder)) if folder.is_dir() else None
    return found if found is not None and found.identifiers else None


def preprocess_unlabelled(dataset: int | str, plans_name: str, configuration: str,
                          num_processes: int) -> tuple[int, dict[str, str]]:
    """Preprocess imagesUn/ for a configuration as nnU-Net does test cases, and remove what is not in it any more.

    dataset: id or name. Returns how many are done and, of cases that can not be used, what is wrong with them. Raises
    FileNotFoundError if there is no imagesUn/ or no such plans, ValueError for another configuration and for files that
    are not as nnU-Net makes them.
    """
    name = maybe_convert_to_dataset_name(dataset)
    raw, base = raw_folder(name), Path(os.environ["nnUNet_preprocessed"], name)
    plans_file, dataset_file = base / f"{plans_name}.json", base / "dataset.json"
    for file, remedy in ((raw, "scans without labels belong there, CASE_0000, CASE_0001 ... as in imagesTr"),
                         (plans_file, f"run nnUNetv2_plan_and_preprocess -d {dataset} first")):
        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist: {remedy}")
    try:
        plans = PlansManager(str(plans_file))
        available = plans.available_configurations
        manager = plans.get_configuration(configuration) if configuration in available else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{plans_file}: are no plans of nnU-Net ({type(error).__name__}: {error})") from error
    if manager is None:
        raise ValueError(f"-c {configuration}: the plans {plans_name} have {', '.join(available)}")
    dataset_json = read_dataset_json(dataset_file)
    ending = dataset_json["file_ending"]
    cases = {os.path.basename(files[0])[:-len(f"_0000{ending}")]: files
             for files in files_of_cases(str(raw), channel_names(dataset_json), ending)}
    folder = preprocessed_folder(name, manager.data_identifier)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers([folder])
    for gone in {*nnUNetDatasetBlosc2.get_identifiers(str(folder))} - {*cases}:
        _remove(folder, gone)
    jobs = {case: (case, files, str(plans_file), dataset_json, configuration, folder) for case, files in cases.items()}
    done, problems = over_cases(_preprocess_case, jobs, num_processes, f"{dataset} {configuration}")
    for case in problems:
        _remove(folder, case)
    return len(done), problems


def _remove(folder: Path, case: str) -> None:
    for ending in reversed(ENDINGS):
        (folder / f"{case}{ending}").unlink(missing_ok=True)


def _preprocess_case(case: str, files: Sequence[str], plans_file: str, dataset_json: dict, configuration: str,
                     folder: Path) -> None:
    plans = PlansManager(plans_file)
    manager = plans.get_configuration(configuration)
    names, ending = channel_names(dataset_json), dataset_json["file_ending"]

    class Preprocessor(manager.preprocessor_class):
        def run_case_npy(self, data, *args, **kwargs):
            check_array(data, names, files, ending)
            data, segmentation, properties = super().run_case_npy(data, *args, **kwargs)
            properties["class_locations"] = {}  # nnU-Net's loader looks them up
            return data, segmentation, properties

    with temporary_folder(folder / case) as temporary:
        temporary.mkdir(exist_ok=True)
        check_files(files)
        Preprocessor(verbose=False).run_case_save(str(temporary / case), list(files), None, plans, manager,
                                                  dataset_json)
        for ending in ENDINGS:
            os.replace(temporary / f"{case}{ending}", folder / f"{case}{ending}")
