"""`nnUNetv2_rmr_trainers`: print the folder that belongs into nnUNet_extTrainer."""

import argparse
import sys

from nnunetv2_rmr.ext_trainer import trainers_folder


def main() -> None:
    argparse.ArgumentParser(
        prog="nnUNetv2_rmr_trainers",
        description='Prints the folder with the trainers of nnunetv2-rmr. Put this where you set nnU-Net\'s paths: '
                    'export nnUNet_extTrainer="$(nnUNetv2_rmr_trainers)"',
    ).parse_args()
    try:
        print(trainers_folder())
    except FileNotFoundError as error:
        sys.exit(f"nnUNetv2_rmr_trainers: error: {error}")
