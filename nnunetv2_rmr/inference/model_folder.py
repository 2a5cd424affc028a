"""Where a model's files are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor


def find_model(folder: str | os.PathLike) -> None:
    """Raises FileNotFoundError, which says what there is, if it holds no dataset.json and plans.json."""
    folder = Path(os.path.abspath(folder))
    for name in ("dataset.json", "plans.json"):
        if (folder / name).is_file():
            continue
        if folder.name.startswith("fold_") and (folder.parent / name).is_file():
            raise FileNotFoundError(f"{folder}: is the folder of a fold; give the model's, {folder.parent}, and the "
                                    "fold with -f")
        trained = sorted(file.parent.name for file in folder.parent.glob("*__*__*/dataset.json"))
        raise FileNotFoundError(f"no trained model in {folder} (of -m, or of -d, -tr, -p and -c), {name} is missing; "
                                f"trained models in {folder.parent}: {', '.join(trained) or 'none'}")


def find_checkpoints(model: Path, folds: Sequence[int | str] | str | None, name: str) -> list[Path]:
    """Files fold_X/NAME of a model, relative to its folder. folds: some, one, or None for all that nnU-Net finds.

    Raises FileNotFoundError, which says what there is, if one is missing or there are none.
    """
    if folds is None:
        folds = nnUNetPredictor.auto_detect_available_folds(str(model), name)
    files = [Path(f"fold_{fold}", name) for fold in ([folds] if isinstance(folds, str) else folds)]
    if missing := [str(file) for file in files if not (model / file).is_file()] or [name] * (not files):
        raise FileNotFoundError(f"no {', '.join(missing)} in {model}; there are (options -f and -chk): "
                                + list_checkpoints(model))
    return files


def list_checkpoints(model: Path) -> str:
    """'fold_0/checkpoint_final.pth, ...', or 'none', to end a message about one that is missing."""
    return ", ".join(sorted(f"{f.parent.name}/{f.name}" for f in model.glob("fold_*/*.pth"))) or "none"
