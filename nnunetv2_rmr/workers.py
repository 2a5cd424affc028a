"""Work on many cases in several processes at once."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any


class WorkerDied(Exception):
    """Takes the place of the result of a job whose process was killed."""


def as_ready(work: Callable, jobs: Sequence[tuple], num_processes: int) -> Iterator[tuple[int, Any]]:
    """(i, work(*jobs[i])) for every job, in the order in which they get ready.

    With one process or one job all is done here, lazily. Else in new processes of one thread each. A job that died with
    its process gives a `WorkerDied`, as do those that had not begun. What `work` raises is raised here. When that
    happens, or when the caller stops asking, jobs under way are finished and the rest is not begun; Ctrl-C in a
    terminal stops jobs under way as well.
    """
    processes = min(num_processes, len(jobs))
    if processes <= 1:
        yield from ((i, work(*job)) for i, job in enumerate(jobs))
        return
    # spawn: forking a process in which threads of SimpleITK or torch run can hang
    with ProcessPoolExecutor(processes, get_context("spawn"), _prepare_worker) as pool:
        futures = {pool.submit(work, *job): i for i, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                try:
                    result = future.result()
                except BrokenProcessPool:
                    result = WorkerDied("a worker process died, most likely for lack of memory: use fewer than "
                                        f"-np {processes}")
                yield futures[future], result
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once, without a traceback
    for library in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):  # read when numpy, torch and SimpleITK are imported
        os.environ[library] = "1"
