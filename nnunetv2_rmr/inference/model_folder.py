"""Where a model's files are."""

import os
from collections.abc import Sequence
from pathlib import Path


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


def find_checkpoints(model: Path, folds: Sequence[int | str] | str | None, name: str) -> dict[str, Path]:
    """Files fold_X/NAME of a model, by fold. folds: some, one, or None for all that there are; `all` if it is alone.

    Raises FileNotFoundError, which says what there is, if one is missing or there are none.
    """
    if folds is None:
        found = sorted(file.parent.name.removeprefix("fold_") for file in model.glob(f"fold_*/{name}"))
        folds = [fold for fold in found if fold != "all"] or found
    files = {str(f): model / f"fold_{f}" / name for f in ([folds] if isinstance(folds, str) else folds)}
    if missing := [f"fold_{f}/{name}" for f, file in files.items() if not file.is_file()] or [name] * (not files):
        there = sorted(f"{file.parent.name}/{file.name}" for file in model.glob("fold_*/*.pth"))
        raise FileNotFoundError(f"no {', '.join(missing)} in {model}; there are (options -f and -chk): "
                                + (", ".join(there) or "none yet"))
    return files
