"""Workers that fail or die cost one image, and none stays behind."""

import multiprocessing
import os
import signal

import pytest

from eseg_d2.apps.doctor import check_datasets, files, sources_from_config
from eseg_d2.apps.doctor.pool import WorkerDied, run_in_processes


def square(number):
    if number % 10 == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


@pytest.mark.parametrize("workers", [1, 3])
def test_dead_workers_are_replaced(workers):
    results = dict(run_in_processes(square, range(25), workers))
    assert sorted(results) == list(range(25))
    dead = [index for index, result in results.items() if isinstance(result, WorkerDied)]
    assert sorted(dead) == [3, 13, 23]
    assert "-9" in str(results[3])
    assert all(results[i] == i**2 for i in range(25) if i not in dead)
    assert not multiprocessing.active_children()


def test_no_items():
    assert list(run_in_processes(square, [], 4)) == []


def test_large_items_and_results():
    items = [os.urandom(1 << 20) for _ in range(4)]
    assert dict(run_in_processes(bytes, items, 2)) == dict(enumerate(items))


def test_an_interrupt_leaves_no_process():
    results = run_in_processes(square, [0] * 1000, 2)
    next(results)
    assert multiprocessing.active_children()
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="workers inherit the broken check"
)
def test_failing_and_dying_checks_become_findings(tiny, monkeypatch):
    check = files._check

    def broken_check(record, by_id):
        if record.image_id == 12:
            raise MemoryError("of 3 GB")
        if record.image_id == 21:
            os._exit(7)
        return check(record, by_id)

    monkeypatch.setattr(files, "_check", broken_check)
    report = check_datasets(sources_from_config(tiny.config()), workers=2)
    failed, died = report.findings
    assert (failed.code, failed.id, failed.file) == ("internal", 12, str(tiny.train.png(1)))
    assert "MemoryError" in failed.message and "of 3 GB" in failed.message
    assert (died.code, died.id, died.file) == ("internal", 21, str(tiny.val.png()))
    assert "exit code 7" in died.message
    assert [d.checked for d in report.datasets] == [2, 1]


def test_no_workers(tiny):
    with pytest.raises(ValueError, match="workers is 0"):
        check_datasets(sources_from_config(tiny.config()), workers=0)
