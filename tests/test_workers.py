"""Work in several processes: all results, whatever happens to one of them."""

import os
import signal
import time

import pytest

from nnunetv2_rmr.workers import WorkerDied, as_ready


def square(x: int) -> int:
    return x * x


def threads_and_interrupts(_: int) -> tuple[str | None, bool]:
    return os.environ.get("OMP_NUM_THREADS"), signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def killed_at_two(x: int) -> int:
    if x == 2:
        time.sleep(1)  # the first ones are done by then
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def refuses_one(x: int) -> int:
    if x == 1:
        raise ValueError("one")
    return x


def leaves_a_file(folder: str, i: int) -> None:
    open(os.path.join(folder, str(i)), "w").close()
    time.sleep(0.2)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_job_comes_with_its_own_result(processes):
    assert dict(as_ready(square, [(3,), (1,), (2,)], processes)) == {0: 9, 1: 1, 2: 4}


def test_one_process_works_only_when_asked():
    ready = as_ready(refuses_one, [(0,), (1,)], 1)
    assert next(ready) == (0, 0)
    with pytest.raises(ValueError, match="one"):
        next(ready)


def test_no_jobs_give_nothing():
    assert list(as_ready(square, [], 4)) == []


def test_workers_have_one_thread_and_end_at_ctrl_c_without_a_traceback():
    assert all(found == ("1", True) for _, found in as_ready(threads_and_interrupts, [(0,), (1,)], 2))


def test_a_killed_worker_is_reported_and_finished_jobs_are_kept():
    results = dict(as_ready(killed_at_two, [(0,), (1,), (2,)], 2))
    assert (results[0], results[1]) == (0, 1)
    assert isinstance(results[2], WorkerDied) and "fewer than -np 2" in str(results[2])


def test_what_a_job_raises_is_raised():
    with pytest.raises(ValueError, match="one"):
        list(as_ready(refuses_one, [(0,), (1,), (2,)], 2))


def test_jobs_that_nobody_waits_for_are_not_begun(tmp_path):
    ready = as_ready(leaves_a_file, [(str(tmp_path), i) for i in range(40)], 2)
    next(ready)
    ready.close()
    assert len(list(tmp_path.iterdir())) < 10
