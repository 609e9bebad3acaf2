"""Settings that are one of a few names."""

__all__ = ["check_choice"]


def check_choice(key: str, got: str, choices: tuple[str, ...]) -> None:
    """
    Raises:
        ValueError: ``got``, the value of the config key, is none of the choices.
    """
    if got not in choices:
        raise ValueError(f"{key} is {got!r}; expected one of {choices}")
