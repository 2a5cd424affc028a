"""Work on many cases in several processes at once."""

import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures import wait as waits
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any

from tqdm import tqdm

from nnunetv2_rmr.files.refused import BadCaseError


@dataclass(frozen=True)
class Failure:
    """What is kept of a case that failed. traceback: of what is not known to be the fault of its files, or of the disk.
    """

    message: str
    traceback: str = ""


# takes the place of the result of a job whose process was killed
DIED = Failure("its worker process died, most likely for lack of memory: use fewer processes, or give the machine more "
               "memory")


def or_failure(what: str, work: Callable, *job: Any) -> Any:
    """work(*job), or why there is no `what` ("": the message does not say of what)."""
    prefix = f"{what}: " if what else ""
    try:
        return work(*job)
    except BadCaseError as error:
        return Failure(str(error))
    except OSError as error:
        return Failure(f"{prefix}{error}")
    except Exception as error:
        return Failure(f"{prefix}{type(error).__name__}: {str(error).strip()}", traceback.format_exc())


def over_cases(work: Callable, jobs: Mapping[str, tuple], num_processes: int,
               text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """work(*job) for the job of every case, with a progress bar on terminals: by case the results, and of those that
    failed the reason. Of a failure that nobody has thought of the traceback goes to standard error."""
    results, failures = {}, {}
    outcomes = in_order(or_failure, [("", work, *job) for job in jobs.values()], num_processes)
    for case, outcome in zip(jobs, tqdm(outcomes, total=len(jobs), desc=text, unit="case", disable=None)):
        if isinstance(outcome, Failure):
            failures[case] = outcome.message
            if outcome.traceback:
                print(f"{case}: {outcome.traceback}", file=sys.stderr)
        else:
            results[case] = outcome
    return results, failures


def in_order(work: Callable, jobs: Sequence[tuple], num_processes: int) -> Iterator:
    """work(*job) for every job, in order: with one process or one job lazily in this one, else `ahead`."""
    processes = min(num_processes, len(jobs))
    return ahead(work, jobs, processes if processes > 1 else 0)


def ahead(work: Callable, jobs: Sequence[tuple], num_processes: int) -> Iterator:
    """work(*job) for every job, in order, in new processes of one thread each; 0 processes: lazily in this one.

    At most num_processes + 1 jobs are ahead of the caller. When a process is killed, what it worked on gives a
    `DIED`, and the rest is done. What `work` raises is raised here. When that happens, or when the caller stops
    asking, jobs under way are finished and the rest is not begun; Ctrl-C in a terminal stops jobs under way as well.
    """
    if num_processes == 0:
        yield from (work(*job) for job in jobs)
        return
    pool, waiting, left = new_pool(num_processes), deque(), deque(jobs)
    try:
        while waiting or left:
            try:
                while left and len(waiting) <= num_processes:
                    waiting.append((left[0], pool.submit(work, *left[0])))
                    left.popleft()
                result = waiting[0][1].result()
            except BrokenProcessPool:  # nobody knows whose fault it was
                pool.shutdown()
                yield from (alone(work, job) for job, _ in waiting)
                pool, waiting = new_pool(num_processes), deque()
            else:
                waiting.popleft()
                yield result
    finally:
        pool.shutdown(cancel_futures=True)


def alone(work: Callable, job: tuple) -> Any:
    """work(*job) in a process of its own, or `DIED`."""
    with new_pool(1) as pool:
        return result_or_death(pool.submit(work, *job))


class Beside:
    """Jobs done beside the caller, who waits while more than `limit` are not ready.

    start: makes what they are done in, an Executor; None: here and at once. If a process of it is killed, what was not
    ready has failed for that, and a new one is started.
    """

    def __init__(self, start: Callable[[], Executor] | None, limit: int):
        self._start, self._limit = start, limit
        self._executor = start() if start else None
        self._names: list[str] = []
        self._futures: list[Future] = []

    def submit(self, what: str, work: Callable, *job: Any) -> None:
        """To do `or_failure(what, work, *job)`."""
        self._names.append(what)
        work, job = or_failure, (what, work, *job)
        waits(self._futures[-self._limit - 1:-self._limit])
        if self._executor is None:
            future = Future()
            future.set_result(work(*job))
        else:
            try:
                future = self._executor.submit(work, *job)
            except BrokenProcessPool:
                self._executor.shutdown()
                self._executor = self._start()
                future = self._executor.submit(work, *job)
        self._futures.append(future)

    def results(self) -> list:
        """Of all jobs, in their order; a Failure of those that failed."""
        results = map(result_or_death, self._futures)
        return [Failure(f"{what}: {DIED.message}") if result is DIED else result
                for what, result in zip(self._names, results)]

    def __enter__(self) -> "Beside":
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._executor is not None:
            self._executor.shutdown()


def result_or_death(future: Future) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        return DIED


def new_pool(processes: int) -> ProcessPoolExecutor:
    """Processes of one thread each, which end when this one does, even if that is killed."""
    # spawn: forking a process in which threads of SimpleITK or torch run can hang
    return ProcessPoolExecutor(processes, get_context("spawn"), _prepare_worker)


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once, without a traceback
    for library in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):  # read when numpy, torch and SimpleITK are imported
        os.environ[library] = "1"
    threading.Thread(target=_end_with, args=(parent_process().sentinel,), daemon=True).start()


def _end_with(parent: int) -> None:
    wait([parent])
    os._exit(1)
