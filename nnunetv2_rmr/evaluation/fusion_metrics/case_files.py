"""Which files belong to which case of a folder of fused images, and reading them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_rmr.evaluation.image_folder import ImageFolder
from nnunetv2_rmr.evaluation.segmentation_metrics import LabelOrRegion, declared_values, labels_and_regions
from nnunetv2_rmr.files.dataset_json import find_dataset_json, read_dataset_json
from nnunetv2_rmr.files.input_check import check_array, read_label_map, reading
from nnunetv2_rmr.files.refused import BadCaseError

BODY, NO_MASK = "body", "none"  # instead of a folder of masks


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


@dataclass(frozen=True)
class Folders:
    """Fused images, CASE.nii.gz; the images that they were fused from, CASE_0000.nii.gz, ...; mask: "body", "none" or a
    folder with CASE.nii.gz; labels: a folder of them, if lesions count. cases: those that have a fused image.
    regions: name -> label or labels, by dataset.json; empty if it says nothing of them.
    """

    fused: Path
    images: ImageFolder
    mask: str
    labels: Path | None
    cases: tuple[str, ...]
    dataset_json: Path | None
    regions: dict[str, LabelOrRegion]
    ignore_label: int | None

    @classmethod
    def find(cls, fused: Path, images: Path, mask: str = BODY, dataset_json: Path | None = None,
             labels: Path | None = None) -> "Folders":
        """File ending and channels are those of dataset_json; by default of a dataset.json in one of the folders or
        beside them, where nnU-Net's predictions and data sets have it. Raises BadCaseError.
        """
        for argument, folder in (("-fused", fused), ("-l", labels),
                                 ("--mask", None if mask in (BODY, NO_MASK) else Path(mask))):
            if folder is not None and not folder.is_dir():
                raise BadCaseError(f"{argument} {folder}: there is no such folder")
        near = (folder for of in (fused.resolve(), images.resolve()) for folder in (of, of.parent))
        dataset_json = dataset_json or find_dataset_json(near)
        source = ImageFolder.open(images, dataset_json, only_read=True)
        ending, names = source.file_ending, source.names
        cases = sorted(f.name[:-len(ending)] for f in fused.iterdir()
                       if f.is_file() and f.name.endswith(ending) and not f.name.startswith("."))
        if not cases:
            raise BadCaseError(f"-fused {fused}: holds no {ending} file")
        if len(names) < 2:
            raise BadCaseError(f"-i {images}: fusion needs at least two channels (CASE_0000{ending}, "
                                f"CASE_0001{ending}, ...), found {', '.join(names)}")
        values = read_dataset_json(dataset_json).get("labels", {})
        return cls(fused, source, mask, labels, tuple(cases), dataset_json, labels_and_regions(values),
                   values.get("ignore"))

    def fused_file(self, case: str) -> str:
        return str(self.fused / (case + self.images.file_ending))

    def mask_file(self, case: str) -> str | None:
        return None if self.mask in (BODY, NO_MASK) else str(Path(self.mask) / (case + self.images.file_ending))

    def label_file(self, case: str) -> str | None:
        return str(self.labels / (case + self.images.file_ending)) if self.labels else None

    def read(self, case: str) -> CaseImages:
        """Raises BadCaseError for files that are missing, broken, on different grids, constant, or hold NaN."""
        fused_file, mask_file, label_file = self.fused_file(case), self.mask_file(case), self.label_file(case)
        data, properties = self.images.read(case, [fused_file, *filter(None, (mask_file, label_file))])
        reader = self.images.reader_writer()
        declared = declared_values(self.regions, self.ignore_label) if self.regions else None
        with reading(f"case {case}"):
            fused = reader.read_images([fused_file])[0]
        mask = read_label_map(mask_file, reader) > 0 if mask_file else None
        label = read_label_map(label_file, reader, declared) if label_file else None
        if fused.shape != data[:1].shape:
            raise BadCaseError(f"case {case}: images of one channel and one shape are needed, found {data[:1].shape} "
                               f"and, fused, {fused.shape}")
        check_array(fused, ["fused"], [fused_file])
        fused, axial_axis = fused[0].astype(np.float32, copy=False), _axial_axis(properties)
        spacing = tuple(float(mm) for mm in properties["spacing"])
        if data.shape[1] == 1:  # 2D files, with nnU-Net's extra axis
            data, fused, axial_axis, spacing = data[:, 0], fused[0], 0, spacing[1:]
            mask, label = (None if values is None else values[0] for values in (mask, label))
        return CaseImages(fused, list(data), spacing, axial_axis, mask, label)


def refuse_segmentation(fused: np.ndarray, file: str) -> None:
    """Raises BadCaseError if the fused image holds few whole numbers only."""
    # nnU-Net's segmentations lie where one looks for fused images first, and every metric would give a number for them
    if (fused == np.rint(fused)).all() and 0 < np.ptp(fused) < 16:
        folder = Path(file).parent
        hint = f"; did you mean -fused {folder / 'fused'}?" if (folder / "fused").is_dir() else ""
        raise BadCaseError(f"{file}: holds whole numbers from {fused.min():g} to {fused.max():g} only: a "
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
