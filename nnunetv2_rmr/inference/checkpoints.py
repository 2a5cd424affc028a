"""What a folder of a trained model has to choose from."""

from pathlib import Path


def list_checkpoints(model_folder: Path) -> str:
    """'fold_0/checkpoint_final.pth, ...', or 'none', to end a message about one that is missing."""
    return ", ".join(sorted(f"{f.parent.name}/{f.name}" for f in model_folder.glob("fold_*/*.pth"))) or "none"
