"""`nnUNetv2_rmr_preprocess_unlabelled`: preprocess the scans without labels that RMR can learn from."""

import argparse
import sys

from nnunetv2_rmr.cli.argument_types import add_num_processes, exit_if_failed
from nnunetv2_rmr.cli.nnunet_arguments import wrong_dataset_in_one_line


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_preprocess_unlabelled",
        description="Preprocesses the scans in imagesUn (beside imagesTr, same names: CASE_0000, CASE_0001 ...), which "
                    "have no labels, for configurations that are planned already. nnUNetTrainerRMR can then learn from "
                    "them. What is no longer in imagesUn is removed.")
    p.add_argument("-d", dest="datasets", nargs="+", required=True, metavar="ID", help="data sets, by id or name")
    p.add_argument("-plans_name", default="nnUNetPlans", metavar="NAME", help="default: %(default)s")
    p.add_argument("-c", dest="configurations", nargs="+", default=["3d_fullres"], metavar="CONFIGURATION",
                   help="default: 3d_fullres")
    add_num_processes(p)
    return p


def main(argv: list[str] | None = None) -> None:
    p = parser()
    values = p.parse_args(argv)

    # Here and not above: nnU-Net takes seconds to import, --help and usage errors should not.
    from nnunetv2_rmr.datasets.unlabelled import preprocess_unlabelled

    failed = {}
    for dataset in values.datasets:
        for configuration in values.configurations:
            try:
                with wrong_dataset_in_one_line():
                    done, problems = preprocess_unlabelled(int(dataset) if dataset.isdecimal() else dataset,
                                                           values.plans_name, configuration, values.num_processes)
            except (OSError, ValueError) as error:
                sys.exit(f"{p.prog}: error: {error}")
            print(f"{dataset} {configuration}: {done} scans preprocessed")
            failed |= {f"{dataset} {configuration}: {case}": reason for case, reason in problems.items()}
    exit_if_failed(p.prog, failed, "used")
