"""Where nnU-Net finds our trainers: the folder of shims and the environment variable nnUNet_extTrainer."""

import os
from pathlib import Path


def trainers_folder() -> Path:
    """Folder of shim modules, in an installed wheel as well as in a checkout.

    Raises FileNotFoundError if neither place holds it (a broken installation).
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "trainers", package.parent / "trainers"):
        if (folder / "nnunet_rmr_trainers.py").is_file():
            return folder
    raise FileNotFoundError(f"the trainer shims of nnunetv2-rmr are neither in {package} nor beside it: "
                            "install the package again, from where you got it")


def add_to_ext_trainer() -> None:
    """Let nnU-Net, in this process and its children, find our trainers; other folders in the variable stay first."""
    ours = str(trainers_folder())
    folders = [f for f in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep) if f.strip()]
    if ours not in folders:
        os.environ["nnUNet_extTrainer"] = os.pathsep.join([*folders, ours])
