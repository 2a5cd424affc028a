"""Disks that get full: a command says so, and leaves whole files only. Needs Linux and root, for small file systems."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from campaign.commands import Command, Ground
from campaign.kills import uninterrupted
from campaign.outcome import Outcome
from campaign.outputs import differences, leavings

PAGE = 4096


def disks(ground: Ground, command: Command, number: int, out: Path) -> Outcome:
    """Of sizes from what it had before it began to a little more than it needs; then with room enough."""
    outcome = Outcome(f"full disk: {command.name}")
    wanted, _ = uninterrupted(ground, command, out)
    needed = pages(out)
    shutil.rmtree(out)
    out.mkdir()
    command.before(out)
    least = pages(out)
    shutil.rmtree(out)
    for size in np.linspace(least, 1.1 * needed, number).astype(int):
        out.mkdir()
        with disk(out, int(size) + 2):
            command.before(out)
            result = ground.run(command, out)
            found, broken = leavings(out)
            problems = command.half(broken)
            if result.returncode == 0:
                problems += differences(found, wanted)
            elif "Traceback" in result.stdout and command.ours:
                problems.append("a traceback")
            remount(out)
            again = ground.run(command, out, again=True)
            found, broken = leavings(out)
            problems += broken + differences(found, wanted)
            if again.returncode:
                problems.append(f"exit status {again.returncode} with room enough: {again.stdout[-300:]}")
        out.rmdir()
        told = f"{command.name}, {size * PAGE // 1024} of {needed * PAGE // 1024} KiB"
        if problems:
            outcome.wrong(f"{told}: {'; '.join(problems)}")
        elif result.returncode:
            outcome.refused("rror" in result.stdout)
        else:
            outcome.fine()
    return outcome


def pages(folder: Path) -> int:
    return sum(1 + -(-file.stat().st_size // PAGE) for file in folder.rglob("*"))


@contextmanager
def disk(folder: Path, size: int):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size * PAGE}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True)
