"""What ends a run, said to its user."""

__all__ = ["BadSampleError", "RunError"]


class RunError(RuntimeError):
    """A run that cannot go on. The message says why, what is kept and how to go on."""


class BadSampleError(ValueError):
    """The files of one sample cannot be used; the message names them. Others may be fine."""
