"""Work in several processes: all results, whatever happens to one of them."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.files.workers import DIED, Beside, ahead, in_order, new_pool, over_cases


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
    assert list(in_order(square, [(3,), (1,), (2,)], processes)) == [9, 1, 4]


def test_one_process_works_only_when_asked():
    results = in_order(refuses_one, [(0,), (1,)], 1)
    assert next(results) == 0
    with pytest.raises(ValueError, match="one"):
        next(results)


def test_no_jobs_give_nothing():
    assert list(in_order(square, [], 4)) == []


def test_workers_have_one_thread_and_end_at_ctrl_c_without_a_traceback():
    assert all(found == ("1", True) for found in in_order(threads_and_interrupts, [(0,), (1,)], 2))


def test_only_the_job_whose_worker_is_killed_goes_without_a_result():
    results = list(ahead(killed_at_two, [(i,) for i in (2, 0, 1, 3, 4, 5)], 2))
    assert results == [DIED, 0, 1, 3, 4, 5]


def test_work_ahead_comes_in_order_and_not_before_it_is_asked_for(tmp_path):
    assert list(ahead(square, [(i,) for i in range(7)], 2)) == [i * i for i in range(7)]
    results = ahead(leaves_a_file, [(str(tmp_path), i) for i in range(40)], 2)
    next(results)
    results.close()
    assert len(list(tmp_path.iterdir())) < 10


@pytest.mark.parametrize("start", [None, partial(new_pool, 2)])
def test_work_beside_the_caller_gives_all_results_but_that_of_a_killed_process(start):
    with Beside(start, 3) as beside:
        for i in (0, 1, 3):
            beside.submit(str(i), killed_at_two, i)
        if start:
            beside.submit("2", killed_at_two, 2)
            time.sleep(3)
        beside.submit("5", square, 5)
        beside.submit("one", refuses_one, 1)
        results = beside.results()
    assert results[:3] == [0, 1, 3] and results[-2] == 25 and results[-1].message == "one: ValueError: one"
    assert not start or results[3].message.startswith("2: its worker process died")


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    code = ("import os, signal, sys, time\n"
            "from nnunetv2_rmr.files.workers import new_pool\n"
            "if __name__ == '__main__':\n"
            "    pool = new_pool(2)\n"
            "    print(*{pool.submit(os.getpid).result() for _ in range(3)}, pool.submit(time.sleep, 60) and '', "
            "flush=True)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n")
    (tmp_path / "parent.py").write_text(code)
    printed = subprocess.run([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True).stdout
    workers = [int(number) for number in printed.split()]
    until = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert workers and not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_of_a_failure_that_nobody_has_thought_of_the_traceback_is_told(capsys):
    def fail(error: Exception):
        raise error

    jobs = {"bad": (BadCaseError("b.nii.gz"),), "full": (OSError("no space"),), "bug": (KeyError("forgotten"),)}
    results, failures = over_cases(fail, jobs, 1, "")
    told = capsys.readouterr().err
    assert not results and list(failures) == list(jobs) and failures["bug"] == "KeyError: 'forgotten'"
    assert "bug: Traceback" in told and "in fail\n    raise error" in told and told.count("Traceback") == 1


def test_what_a_job_raises_is_raised():
    with pytest.raises(ValueError, match="one"):
        list(in_order(refuses_one, [(0,), (1,), (2,)], 2))
