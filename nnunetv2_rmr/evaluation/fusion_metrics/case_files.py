"""Which files belong to which case of a folder of fused images, and reading them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunetv2_rmr.evaluation.readers import reader_writer_of
from nnunetv2_rmr.evaluation.segmentation_metrics import LabelOrRegion, labels_and_regions
from nnunetv2_rmr.files.input_check import (
    BadCaseError,
    check_array,
    check_files,
    images_in,
    read_label_map,
    surplus_images,
)
from nnunetv2_rmr.settings import channel_names

BODY, NO_MASK = "body", "none"  # instead of a folder of masks


class FolderError(ValueError):
    """The folders as a whole can not be evaluated. The message names argument and value."""


@dataclass(frozen=True)
class CaseFiles:
    """images: in the order of the channels. mask: a file, "body" or "none". label: a file, if lesions count."""

    case: str
    fused: str
    images: tuple[str, ...]
    mask: str
    label: str | None = None


@dataclass(frozen=True)
class Found:
    """channels: their names. regions: name -> label or labels, by dataset.json; empty if it says nothing of them.
    not_fused: cases of the images folder that have no fused image.
    """

    cases: list[CaseFiles]
    channels: list[str]
    regions: dict[str, LabelOrRegion]
    ignore_label: int | None
    file_ending: str
    reader: type[BaseReaderWriter]
    dataset_json: str | None
    not_fused: list[str]


def find_case_files(fused_folder: Path, images_folder: Path, mask: str = BODY, dataset_json: Path | None = None,
                    labels_folder: Path | None = None) -> Found:
    """Every file of fused_folder, CASE.nii.gz, with its CASE_0000.nii.gz, ... of images_folder; they need not exist.

    mask: "body", "none", or a folder with CASE.nii.gz. labels_folder: with CASE.nii.gz. File ending and channels are
    those of dataset_json; by default of a dataset.json in one of the folders or beside them (where nnU-Net's
    predictions and data sets have it). Without any: .nii.gz, and the channel numbers found. Raises FolderError.
    """
    for argument, folder in (("-fused", fused_folder), ("-i", images_folder),
                             ("--mask", None if mask in (BODY, NO_MASK) else Path(mask)), ("-l", labels_folder)):
        if folder is not None and not folder.is_dir():
            raise FolderError(f"{argument} {folder}: there is no such folder")
    dataset_file = dataset_json or _dataset_json_near(fused_folder, images_folder)
    content = _load(dataset_file) if dataset_file else {"file_ending": ".nii.gz"}
    ending = content["file_ending"]

    cases = sorted(f.name[:-len(ending)] for f in fused_folder.iterdir()
                   if f.is_file() and f.name.endswith(ending) and not f.name.startswith("."))
    if not cases:
        raise FolderError(f"-fused {fused_folder}: holds no {ending} file")
    images = images_in(images_folder, ending)
    if dataset_file:
        channels = channel_names(content)
    else:
        channels = [f"{i:04d}" for i in range(1 + max((int(m[2]) for m in images if m[1] in cases), default=-1))]
    if len(channels) < 2:
        raise FolderError(f"-i {images_folder}: fusion needs at least two channels (CASE_0000{ending}, "
                          f"CASE_0001{ending}, ...) of the cases in {fused_folder}, found {len(channels)}"
                          + (f" ({', '.join(channels)} by {dataset_file})" if dataset_file else ""))
    if surplus := surplus_images([m for m in images if m[1] in cases], len(channels)):
        raise FolderError(f"-i {images_folder}: {surplus}: there are {len(channels)} channels ({', '.join(channels)} "
                          f"by {dataset_file})")
    files = [CaseFiles(case, str(fused_folder / (case + ending)),
                       tuple(str(images_folder / f"{case}_{i:04d}{ending}") for i in range(len(channels))),
                       mask if mask in (BODY, NO_MASK) else str(Path(mask) / (case + ending)),
                       str(labels_folder / (case + ending)) if labels_folder else None) for case in cases]
    labels = content.get("labels", {})
    return Found(files, channels, labels_and_regions(labels), labels.get("ignore"), ending, _reader(content, files),
                 str(dataset_file) if dataset_file else None, sorted({image[1] for image in images} - set(cases)))


def _dataset_json_near(fused_folder: Path, images_folder: Path) -> Path | None:
    fused, images = Path(os.path.realpath(fused_folder)), Path(os.path.realpath(images_folder))
    candidates = (folder / "dataset.json" for folder in (fused, fused.parent, images, images.parent))
    return next((file for file in candidates if file.is_file()), None)


def _load(file: Path) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        channel_names(content), content["file_ending"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(f"{file}: is no dataset.json of nnU-Net v2 ({type(error).__name__}: {error})") from error
    return content


def _reader(dataset_json: dict, cases: Sequence[CaseFiles]) -> type[BaseReaderWriter]:
    example = next((case.images[0] for case in cases if Path(case.images[0]).is_file()), None)
    try:
        return reader_writer_of(dataset_json, example)
    except RuntimeError:
        raise FolderError(f"nnU-Net has no reader for {dataset_json['file_ending']} files") from None


@dataclass(frozen=True)
class CaseImages:
    """Arrays (D, H, W), (H, W) for 2D files. spacing: mm, of their axes. axial_axis: of the arrays, the one closest to
    head-to-foot. mask, label: None if no file was given.
    """

    fused: np.ndarray
    sources: list[np.ndarray]
    spacing: tuple[float, ...]
    axial_axis: int
    mask: np.ndarray | None
    label: np.ndarray | None


def read_case(files: CaseFiles, channels: Sequence[str], file_ending: str,
              reader: type[BaseReaderWriter]) -> CaseImages:
    """Raises BadCaseError for files that are missing, broken, on different grids, constant, or hold NaN."""
    images = [*files.images, files.fused]
    masks = {"mask": None if files.mask in (BODY, NO_MASK) else files.mask, "label": files.label}
    check_files(files.images, [files.fused, *filter(None, masks.values())])
    try:
        # one by one: nnU-Net's readers print a page if the last digits of the headers differ
        read = [reader().read_images([file]) for file in images]
        mask = reader().read_seg(masks["mask"])[0][0] if masks["mask"] else None
        label = read_label_map(masks["label"], reader()) if masks["label"] else None
    except BadCaseError:
        raise
    except Exception as error:  # readers raise whatever they like
        raise BadCaseError(f"can not read case {files.case}: {str(error).strip() or type(error).__name__}") from error
    arrays, properties = [array for array, _ in read], read[0][1]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1 or arrays[0].shape[0] != 1:
        raise BadCaseError(f"case {files.case}: images of one channel and one shape are needed, found {sorted(shapes)}")
    data = np.concatenate(arrays).astype(np.float32, copy=False)
    check_array(data, [*channels, "fused"], images, file_ending)
    axial_axis, spacing = _axial_axis(properties), tuple(float(mm) for mm in properties["spacing"])
    if data.shape[1] == 1:  # 2D files, with nnU-Net's extra axis
        data, axial_axis, spacing = data[:, 0], 0, spacing[1:]
        mask, label = (None if values is None else values[0] for values in (mask, label))
    return CaseImages(data[-1], list(data[:-1]), spacing, axial_axis, None if mask is None else mask > 0, label)


def refuse_segmentation(fused: np.ndarray, files: CaseFiles) -> None:
    """Raises BadCaseError if the fused image holds few whole numbers only."""
    # nnU-Net's segmentations lie where one looks for fused images first, and every metric would give a number for them
    if (fused == np.rint(fused)).all() and 0 < np.ptp(fused) < 16:
        folder = Path(files.fused).parent
        hint = f"; did you mean -fused {folder / 'fused'}?" if (folder / "fused").is_dir() else ""
        raise BadCaseError(f"{files.fused}: holds whole numbers from {fused.min():g} to {fused.max():g} only: a "
                           f"segmentation, not a fused image{hint}")


def _axial_axis(properties: dict) -> int:
    """By the image's direction in space; 0, where nnU-Net's arrays have it as a rule, for formats without one."""
    if "sitk_stuff" in properties:
        direction = np.abs(properties["sitk_stuff"]["direction"])
        return 2 - int(direction.reshape(3, 3)[2].argmax()) if direction.size == 9 else 0  # arrays: z, y, x
    if "nibabel_stuff" in properties:
        affines = properties["nibabel_stuff"]
        affine = np.asarray(affines.get("reoriented_affine", affines["original_affine"]))[:3, :3]
        return 2 - int((np.abs(affine) / np.linalg.norm(affine, axis=0))[2].argmax())
    return 0
