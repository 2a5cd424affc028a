"""How much does every degradation change real scans at every severity, and does it always grow?

    python benchmarks/calibrate_corruptions.py -i IMAGES -o OUT.csv [--corruption NAME ...] [--seeds 0 1] [-np 2]

IMAGES: a folder in nnU-Net's format (imagesTr), with its dataset.json beside it. For every case, modality and seed: the
image difference (root mean squared difference in the body / standard deviation there), the same after both images were
z-scored in the body, as nnU-Net does (what remains is no mere change of brightness and contrast), and seconds. Prints
tables of means and ranges, and every series that does not grow at each step; exit status 1 if there are any.
"""

import argparse
import csv
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from nnunetv2_rmr.evaluation.image_folder import ImageFolder
from nnunetv2_rmr.evaluation.scan_degradations import (
    SCAN_DEGRADATIONS,
    SEVERITIES,
    generator,
    image_difference,
    nonzero_body,
)

COLUMNS = ("corruption", "severity", "case", "modality", "seed", "difference", "z_difference", "seconds")


def z_scored(image: np.ndarray, body: np.ndarray) -> np.ndarray:
    inside = image[body].astype(np.float64)
    return (image - inside.mean()) / inside.std()


def measure(images: ImageFolder, case: str, names: list[str], seeds: list[int]) -> list[dict]:
    volumes, properties = images.read(case)
    body = nonzero_body(volumes)
    rows = []
    for channel, modality in enumerate(images.names):
        clean = volumes[channel]
        clean_z = z_scored(clean, body)
        for name in names:
            for seed in seeds:
                for severity in SEVERITIES:
                    start = time.perf_counter()
                    damaged = SCAN_DEGRADATIONS[name].apply(
                        clean, tuple(properties["spacing"]), SCAN_DEGRADATIONS[name].parameters[severity - 1],
                        generator(seed, case, name, channel), body)
                    seconds = time.perf_counter() - start
                    rows.append(dict(zip(COLUMNS, (
                        name, severity, case, modality, seed, image_difference(clean, damaged, body),
                        image_difference(clean_z, z_scored(damaged, body), body), seconds))))
    return rows


def print_table(rows: list[dict], key: str, title: str) -> None:
    values = defaultdict(list)
    for row in rows:
        values[row["corruption"], row["severity"]].append(row[key])
    print(f"\n| {title} | " + " | ".join(map(str, SEVERITIES)) + " |\n|" + "---|" * (1 + len(SEVERITIES)))
    for name in dict.fromkeys(row["corruption"] for row in rows):
        cells = [f"{np.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in (values[name, s] for s in SEVERITIES)]
        print(f"| {name} | " + " | ".join(cells) + " |")


def not_growing(rows: list[dict], key: str) -> dict[tuple, list[float]]:
    series = defaultdict(dict)
    for row in rows:
        series[tuple(row[c] for c in ("corruption", "case", "modality", "seed"))][row["severity"]] = row[key]
    ordered = {which: [values[s] for s in SEVERITIES] for which, values in series.items()}
    return {which: values for which, values in ordered.items() if not np.all(np.diff(values) > 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", type=Path, required=True, help="folder of images")
    parser.add_argument("-o", type=Path, required=True, help="CSV file of all measurements")
    parser.add_argument("--corruption", nargs="+", choices=SCAN_DEGRADATIONS, default=list(SCAN_DEGRADATIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("-np", dest="processes", type=int, default=1)
    args = parser.parse_args()
    images = ImageFolder.open(args.i)

    rows = []
    with ProcessPoolExecutor(args.processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool, \
            open(args.o, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for done in as_completed(pool.submit(measure, images, case, args.corruption, args.seeds)
                                 for case in images.cases):
            rows += done.result()
            writer.writerows(done.result())
            file.flush()
    print(f"{len(images.cases)} cases, {len(images.names)} modalities, {len(args.seeds)} seed(s): "
          f"mean (lowest to highest)")
    print_table(rows, "difference", "image difference at severity")
    print_table(rows, "z_difference", "the same after z-scoring")
    print_table(rows, "seconds", "seconds per volume")
    for key in ("difference", "z_difference"):
        bad = not_growing(rows, key)
        print(f"\n{key}: {len(bad)} of {len(rows) // len(SEVERITIES)} series do not grow at every step")
        for which, values in bad.items():
            print("  ", *which, np.round(values, 4))
    sys.exit(1 if not_growing(rows, "difference") else 0)


if __name__ == "__main__":
    main()
