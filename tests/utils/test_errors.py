"""Exit statuses and error messages of commands."""

import pytest

from eseg_d2.utils.errors import check_choice, exit_status, listing


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (None, 3, ""),
        (ValueError("no such class"), 1, "error: no such class\n"),
        (FileNotFoundError("no such file: a"), 1, "error: no such file: a\n"),
        (KeyboardInterrupt(), 130, "interrupted: again\n"),
    ],
)
def test_errors_become_exit_statuses_and_messages(capsys, error, status, message):
    def work():
        if error:
            raise error
        return 3

    assert exit_status(work, if_interrupted="again") == status
    assert capsys.readouterr().err == message
    assert exit_status(lambda: None, if_interrupted="again") == 0
    with pytest.raises(KeyError):  # bugs keep their traceback
        exit_status(lambda: {}["key"], if_interrupted="again")


def test_listing_shortens_long_lists():
    assert listing([1, 2, 3]) == "1, 2, 3"
    assert listing("abcde", limit=2) == "a, b and 3 more"


def test_invalid_choice_is_refused_with_the_valid_ones():
    check_choice("KEY", "a", ["a", "b"])
    with pytest.raises(ValueError, match=r"KEY is 'c'; expected one of \['a', 'b'\]"):
        check_choice("KEY", "c", ["a", "b"])
