"""Peak memory of a command: the largest sum, over all its processes, of resident memory.

    python benchmarks/peak_memory.py nnUNetv2_rmr_predict -i IN -o OUT ...

Prints, after the command's own output, the peak of the summed RSS (counts memory shared between processes once per
process) and of the summed PSS (shares it out), in GB = 1e9 bytes, and the seconds it took. Linux only. Samples four
times a second, so shorter peaks can be missed.
"""

import subprocess
import sys
import time
from pathlib import Path


def descendants(root: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found, queue = [root], [root]
    while queue:
        parent = queue.pop()
        children = [pid for pid, its_parent in parents.items() if its_parent == parent]
        found += children
        queue += children
    return found


def memory(pids: list[int]) -> dict[str, int]:
    """Summed Rss and Pss in bytes."""
    total = {"Rss": 0, "Pss": 0}
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key = line.split(":")[0]
            if key in total:
                total[key] += int(line.split()[1]) * 1024
    return total


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    start = time.time()
    process = subprocess.Popen(sys.argv[1:])
    peak = {"Rss": 0, "Pss": 0}
    while process.poll() is None:
        now = memory(descendants(process.pid))
        peak = {key: max(peak[key], now[key]) for key in peak}
        time.sleep(0.25)
    print(f"peak memory, all processes: RSS {peak['Rss'] / 1e9:.2f} GB, PSS {peak['Pss'] / 1e9:.2f} GB; "
          f"{time.time() - start:.0f} s; exit status {process.returncode}")
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
