"""Errors that a user can cause, and words for their messages."""

import sys
from collections.abc import Callable, Iterable

__all__ = ["BadSampleError", "RunError", "check_choice", "exit_status", "listing"]


class RunError(RuntimeError):
    """A run that cannot go on. The message says why, what is kept and how to go on."""


class BadSampleError(ValueError):
    """The files of one sample cannot be used; the message names them. Others may be fine."""


def check_choice(key: str, got: str, choices: Iterable[str]) -> None:
    """Check the value ``got`` of a config key or an argument.

    Raises:
        ValueError: it is not one of the choices.
    """
    choices = [*choices]
    if got not in choices:
        raise ValueError(f"{key} is {got!r}; expected one of {choices}")


def listing(values: Iterable, limit: int = 3) -> str:
    """Return "1, 2, 3": the values, or the first ``limit`` and how many more there are."""
    values = [str(value) for value in values]
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(values[:limit]) + more


def exit_status(work: Callable[[], int | None], *, if_interrupted: str) -> int:
    """Do the work of a command, and say in a line why it cannot be done.

    Args:
        work: raises ValueError or OSError for what its user can mend.
        if_interrupted: what to tell after Ctrl-C.

    Returns:
        What the work returns, 0 for None; 1 after an error, 130 after Ctrl-C.
    """
    try:
        return work() or 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: {if_interrupted}", file=sys.stderr)
        return 130
