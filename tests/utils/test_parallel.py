"""Mapping a function over items in several processes."""

import multiprocessing
import os
import signal

import pytest

from eseg_d2.utils.parallel import map_in_processes, number_of_workers


def square(number):
    return number**2


def refuse_three(number):
    if number == 3:
        raise ValueError(f"got {number}")
    return number


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def square_or_die(number):
    if number % 10 == 3:
        die(number)
    return number**2


@pytest.mark.parametrize("workers", [1, 2, 100])
@pytest.mark.parametrize("count", [0, 1, 11])
def test_results_are_in_order(workers, count, capsys):
    assert map_in_processes(square, range(count), workers, "squares") == [
        n**2 for n in range(count)
    ]
    shown = "squares: 100%" if count else "squares: 0image"
    assert shown in capsys.readouterr().err


@pytest.mark.parametrize("if_killed", [None, lambda item, reason: None])
@pytest.mark.parametrize("workers", [1, 2])
def test_errors_are_raised_in_the_caller(workers, if_killed):
    with pytest.raises(ValueError, match="got 3"):
        map_in_processes(refuse_three, range(9), workers, "numbers", if_killed=if_killed)


def test_killed_worker_is_an_error():
    with pytest.raises(ChildProcessError, match="exit code -9.*try fewer workers"):
        map_in_processes(die, range(9), 2, "numbers")
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 3])
def test_killed_worker_costs_only_its_item(workers):
    results = map_in_processes(
        square_or_die, range(25), workers, "numbers", if_killed=lambda *what: what
    )
    for number, result in enumerate(results):
        if number % 10 == 3:
            item, reason = result
            assert item == number and "exit code -9" in reason
        else:
            assert result == number**2
    assert not multiprocessing.active_children()


def test_large_items_and_results_are_passed():
    items = [os.urandom(1 << 20) for _ in range(4)]
    assert map_in_processes(bytes, items, 2, "bytes", if_killed=lambda *_: None) == items


def test_interrupt_leaves_no_process(monkeypatch):
    def interrupt(bar, number=1):
        assert multiprocessing.active_children()
        raise KeyboardInterrupt

    monkeypatch.setattr("eseg_d2.utils.parallel.tqdm.update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        map_in_processes(square, range(1000), 2, "numbers")
    assert not multiprocessing.active_children()


def test_number_of_workers_has_a_default_and_is_checked():
    assert number_of_workers(3) == 3
    assert number_of_workers(None) >= 1
    with pytest.raises(ValueError, match="workers is 0, expected at least 1"):
        number_of_workers(0)
