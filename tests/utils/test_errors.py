"""How a command ends, and what it says."""

import pytest

from eseg_d2.utils.errors import check_choice, exit_status, listing


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (ValueError("no such class"), 1, "error: no such class\n"),
        (FileNotFoundError("no such file: a"), 1, "error: no such file: a\n"),
        (KeyboardInterrupt(), 130, "interrupted: again\n"),
    ],
)
def test_exit_status(capsys, error, status, said):
    def work():
        if error:
            raise error

    assert exit_status(work, if_interrupted="again") == status
    assert capsys.readouterr().err == said


def test_mistakes_of_ours_are_not_hidden():
    with pytest.raises(KeyError):
        exit_status(lambda: {}["key"], if_interrupted="again")


def test_a_status_of_the_work_is_kept():
    assert exit_status(lambda: 3, if_interrupted="again") == 3


def test_listing():
    assert listing([1, 2, 3]) == "1, 2, 3"
    assert listing("abcde", limit=2) == "a, b and 3 more"


def test_choices_are_named():
    check_choice("KEY", "a", ["a", "b"])
    with pytest.raises(ValueError, match=r"KEY is 'c'; expected one of \['a', 'b'\]"):
        check_choice("KEY", "c", ["a", "b"])
