"""A folder of very many cases in one go: neither memory nor open files grow with their number."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import tiny
from campaign.commands import Ground
from campaign.outcome import Outcome
from campaign.outputs import leavings

SHAPE = (8, 9, 10)
KIB_A_CASE = 20  # what an entry in lists of names, and noise of the allocator, may take


def many_cases(ground: Ground, number: int, out: Path) -> Outcome:
    """By predict without workers: what grows, grows in this one process."""
    outcome = Outcome(f"{number} cases in one run")
    images, results = out / "images", out / "results"
    shutil.rmtree(out, ignore_errors=True)
    rng = np.random.default_rng(0)
    for i in range(number):
        for channel in range(len(tiny.CHANNELS)):
            tiny.write_image(rng.uniform(1, 100, SHAPE).astype(np.float32), images / f"c{i:05d}_{channel:04d}.nii.gz")
    process = tiny.start("nnUNetv2_rmr_predict_from_modelfolder", "-i", images, "-o", results, "-m", ground.model,
                         "-f", 0, "-device", "cpu", "--disable_tta", "-npp", 0, "-nps", 0, env=ground.env,
                         output=out / "output")
    measured = []  # cases done, KiB, descriptors
    while process.is_alive():
        done = len(list(results.glob("c*.nii.gz")))
        status = Path("/proc", str(process.pid), "status")
        try:
            resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            measured.append((done, int(resident.split()[1]), len(list(status.with_name("fd").iterdir()))))
        except (OSError, StopIteration):
            break
        time.sleep(0.25)
    process.join()
    done, resident, descriptors = np.array([m for m in measured if m[0] > number // 5]).T
    kib, opened = (np.polyfit(done, values, 1)[0] for values in (resident, descriptors))
    outcome.what += f": {kib:+.1f} KiB and {opened:+.4f} descriptors a case"
    found, broken = leavings(results)
    if process.exitcode or len([name for name in found if name.endswith(".nii.gz")]) != 2 * number:
        broken.append(f"exit status {process.exitcode}, {len(found)} files")
    if kib > KIB_A_CASE or opened * number > 5:
        broken.append("grows")
    for problem in broken:
        outcome.wrong(problem)
    outcome.number_fine = number if not broken else 0
    shutil.rmtree(out)
    return outcome
