"""The same work by several processes."""

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


@pytest.mark.parametrize("workers", [1, 2, 100])
@pytest.mark.parametrize("count", [0, 1, 11])
def test_results_are_in_order(workers, count, capsys):
    assert map_in_processes(square, range(count), workers, "squares") == [
        n**2 for n in range(count)
    ]
    shown = "squares: 100%" if count else "squares: 0image"
    assert shown in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_come_through(workers):
    with pytest.raises(ValueError, match="got 3"):
        map_in_processes(refuse_three, range(9), workers, "numbers")


def test_a_killed_worker_is_an_error():
    with pytest.raises(ChildProcessError, match="try fewer workers"):
        map_in_processes(die, range(9), 2, "numbers")


def test_number_of_workers():
    assert number_of_workers(3) == 3
    assert number_of_workers(None) >= 1
    with pytest.raises(ValueError, match="workers is 0, expected at least 1"):
        number_of_workers(0)
