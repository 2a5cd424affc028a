"""`nnUNetv2_rmr_report`: write the report of a benchmark again."""

import argparse

from nnunetv2_rmr.cli.argument_types import errors_in_one_line, output_folder


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(
        prog="nnUNetv2_rmr_report",
        description="Writes OUT/report.html, one HTML file that opens without network, from the files that "
                    "nnUNetv2_rmr_benchmark left in OUT. The benchmark does this itself at its end.")
    p.add_argument("-o", dest="out", type=output_folder, required=True, metavar="OUT", help="the benchmark's folder")
    out = p.parse_args(argv).out

    # Here and not above: --help and usage errors should not wait for the imports
    from nnunetv2_rmr.report.write import write_report

    with errors_in_one_line(p.prog):
        print(write_report(out))
