"""The states of Python's, NumPy's and PyTorch's random number generators."""

import contextlib
import random

import numpy as np
import torch

__all__ = ["get_random_state", "preserved_random_state", "seeded", "set_random_state"]


def get_random_state() -> dict:
    """Return the states of this process's generators, those of its GPUs included.

    Returns:
        Plain containers and tensors, as ``torch.load(..., weights_only=True)`` takes them.
    """
    name, keys, position, has_gauss, cached = np.random.get_state()
    numbers = np.asarray(keys, dtype=np.int64)
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(numbers), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict) -> None:
    """Set what :func:`get_random_state` gave; GPUs that are not here are left out."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    for device, of_device in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(of_device, device)


@contextlib.contextmanager
def preserved_random_state():
    """Keep the states: what happens inside draws no numbers from those that follow."""
    state = get_random_state()
    try:
        yield
    finally:
        set_random_state(state)


@contextlib.contextmanager
def seeded(seed: int, position: int):
    """Seed the CPU's generators by two numbers of 0 or more; afterwards they are as before."""
    python, numpy = random.getstate(), np.random.get_state()
    words = np.random.SeedSequence([seed, position]).generate_state(4)
    with torch.random.fork_rng(devices=[]):
        random.seed(int(words[0]))
        np.random.seed(words[1:3])
        torch.default_generator.manual_seed(int(words[3]))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
