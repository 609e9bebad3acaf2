"""Settings that are one of a few names."""

from collections.abc import Iterable

__all__ = ["check_choice"]


def check_choice(key: str, got: str, choices: Iterable[str]) -> None:
    """
    Raises:
        ValueError: ``got``, the value of the config key or argument, is none of the choices.
    """
    choices = [*choices]
    if got not in choices:
        raise ValueError(f"{key} is {got!r}; expected one of {choices}")
