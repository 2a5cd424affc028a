"""Commands killed at any moment: nothing half is left under a final name, and the next run ends as if nothing was."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from campaign.commands import Command, Ground
from campaign.outcome import Outcome
from campaign.outputs import LEFT, differences, leavings, left_behind

PATIENCE = 20  # seconds that workers have to end when what started them is killed


def uninterrupted(ground: Ground, command: Command, out: Path) -> tuple[dict[str, object], float]:
    """What it leaves, and how long it takes in seconds."""
    fresh(command, out)
    began = time.monotonic()
    result = ground.run(command, out)
    seconds = time.monotonic() - began
    wanted, broken = leavings(out)
    if result.returncode or broken:
        raise RuntimeError(f"{command.name} without any harm: exit status {result.returncode}, {broken}\n"
                           f"{result.stdout[-3000:]}")
    return wanted, seconds


def fresh(command: Command, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command.before(out)


def kills(ground: Ground, command: Command, number: int, out: Path, seed: int = 0) -> Outcome:
    """Half of them at a random moment, half as soon as a random number of files have got their names."""
    outcome, rng = Outcome(f"kill: {command.name}"), np.random.default_rng(seed)
    wanted, seconds = uninterrupted(ground, command, out)
    for i in range(number):
        fresh(command, out)
        there = len(leavings_by_name(out))
        if i % 2:
            moment = rng.uniform(0, seconds)
            told, due = f"after {moment:.2f} s", after(moment)
        else:
            count = int(rng.integers(1, max(2, len(wanted) - there + 1)))
            told, due = f"at name {count}", when_named(out, there + count)
        problems = kill(ground, command, out, due)
        problems += command.half(leavings(out)[1])
        again = ground.run(command, out, again=True)
        if again.returncode:
            problems.append(f"exit status {again.returncode} when run again: {again.stdout[-300:]}")
        if "Traceback" in again.stdout:
            problems.append("a traceback when run again")
        found, broken = leavings(out)
        problems += broken + differences(found, wanted) + [f"{name} stays" for name in left_behind(out)]
        if problems:
            outcome.wrong(f"{command.name}, killed {told}: {'; '.join(problems)}")
        else:
            outcome.fine()
    return outcome


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def when_named(out: Path, count: int) -> Callable[[], bool]:
    return lambda: len(leavings_by_name(out)) >= count


def leavings_by_name(folder: Path) -> list[str]:
    """Files under their final names, quickly: it is asked hundreds of times a second."""
    return [name for _, _, names in os.walk(folder) for name in names if LEFT not in name]


def kill(ground: Ground, command: Command, out: Path, due: Callable[[], bool]) -> list[str]:
    """SIGKILL to the command's first process when `due`; a line if others of it live on."""
    output = out.with_name("output")
    process = ground.start(command, out, output)
    while process.is_alive() and not due():
        time.sleep(0.002)
    process.kill()
    process.join()
    end = time.monotonic() + PATIENCE
    while alive(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    if not alive(process.pid):
        return []
    os.killpg(process.pid, signal.SIGKILL)
    return ["processes that it has started live on"]


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
