"""Work on many cases in several processes at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor
from concurrent.futures import wait as waits
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any


class WorkerDied(Exception):
    """Takes the place of the result of a job whose process was killed."""

    def __init__(self):
        super().__init__("its worker process died, most likely for lack of memory: use fewer processes, or give the "
                         "machine more memory")


def as_ready(work: Callable, jobs: Sequence[tuple], num_processes: int) -> Iterator[tuple[int, Any]]:
    """(i, work(*jobs[i])) for every job, in the order in which they get ready.

    With one process or one job all is done here, lazily. Else in new processes of one thread each. When one of them is
    killed, what it worked on gives a `WorkerDied`, and the rest is done. What `work` raises is raised here. When that
    happens, or when the caller stops asking, jobs under way are finished and the rest is not begun; Ctrl-C in a
    terminal stops jobs under way as well.
    """
    processes = min(num_processes, len(jobs))
    if processes <= 1:
        yield from ((i, work(*job)) for i, job in enumerate(jobs))
        return
    pool, under_way, left = new_pool(processes), {}, list(range(len(jobs)))
    try:
        while under_way or left:
            broken = []
            try:
                while left and len(under_way) < 2 * processes:
                    under_way[pool.submit(work, *jobs[left[0]])] = left[0]
                    left.pop(0)
            except BrokenProcessPool:
                pass  # told of what is under way, too
            for future in waits(under_way, return_when=FIRST_COMPLETED).done:
                i = under_way.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:  # nobody knows whose fault it was
                    broken.append(i)
                else:
                    yield i, result
            if broken or (not under_way and left):
                pool.shutdown()
                yield from ((i, alone(work, jobs[i])) for i in sorted([*broken, *under_way.values()]))
                pool, under_way = new_pool(processes), {}
    finally:
        pool.shutdown(cancel_futures=True)


def ahead(work: Callable, jobs: Sequence[tuple], num_processes: int) -> Iterator:
    """work(*job) for every job, in order, in new processes, at most num_processes + 1 jobs ahead of the caller.

    0 processes: lazily in this one. When a process is killed, what it worked on gives a `WorkerDied`, and the rest is
    done.
    """
    if num_processes == 0:
        yield from (work(*job) for job in jobs)
        return
    pool, waiting = new_pool(num_processes), []
    left = list(jobs)
    try:
        while waiting or left:
            try:
                while left and len(waiting) <= num_processes:
                    waiting.append((left[0], pool.submit(work, *left[0])))
                    left.pop(0)
                result = waiting[0][1].result()
            except BrokenProcessPool:  # nobody knows whose fault it was
                pool.shutdown()
                yield from (alone(work, job) for job, _ in waiting)
                pool, waiting = new_pool(num_processes), []
            else:
                waiting.pop(0)
                yield result
    finally:
        pool.shutdown(cancel_futures=True)


def alone(work: Callable, job: tuple) -> Any:
    """work(*job) in a process of its own, or a `WorkerDied`."""
    with new_pool(1) as pool:
        return result_or_death(pool.submit(work, *job))


class Beside:
    """Jobs done beside the caller, who waits while more than `limit` are not ready.

    start: makes what they are done in, an Executor; None: here and at once. If a process of it is killed, what was not
    ready gives a `WorkerDied`, and a new one is started.
    """

    def __init__(self, start: Callable[[], Executor] | None, limit: int):
        self._start, self._limit = start, limit
        self._executor = start() if start else None
        self._futures: list[Future] = []

    def submit(self, work: Callable, *job: Any) -> None:
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
        """Of all jobs, in their order."""
        return [result_or_death(future) for future in self._futures]

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._executor is not None:
            self._executor.shutdown()


def result_or_death(future: Future) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        return WorkerDied()


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
