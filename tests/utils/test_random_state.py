"""Saving, restoring and seeding the states of the random number generators."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eseg_d2.utils.random_state import (
    get_random_state,
    preserved_random_state,
    seeded,
    set_random_state,
)


def draw() -> tuple:
    """Draw from every generator, including normal numbers, which are drawn in pairs."""
    numpy = np.random.rand(3).tolist(), np.random.randn(3).tolist()
    return random.random(), random.gauss(0, 1), *numpy, torch.rand(3).tolist()


def test_state_can_be_saved_and_loaded(tmp_path):
    draw()
    torch.save(get_random_state(), tmp_path / "state.pth")
    expected = draw(), draw()
    torch.manual_seed(1)
    set_random_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert (draw(), draw()) == expected


@pytest.mark.parametrize("context", [preserved_random_state, lambda: seeded(1, 2)])
@pytest.mark.parametrize("fails", [False, True])
def test_contexts_restore_the_state(context, fails):
    state = get_random_state()
    expected = draw()
    set_random_state(state)
    try:
        with context():
            draw()
            random.seed(0), np.random.seed(0), torch.manual_seed(0)
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert draw() == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**64), st.integers(0, 2**64), st.integers(0, 2**32 - 1))
def test_seeded_draws_depend_only_on_the_seed_and_position(seed, position, before):
    with seeded(seed, position):
        expected = draw()
    with preserved_random_state():
        random.seed(before), np.random.seed(before), torch.manual_seed(before)
        np.random.randn()
        with seeded(seed, position):
            assert draw() == expected


def test_seeds_and_positions_give_independent_draws():
    places = [(seed, position) for seed in range(8) for position in range(50)]
    drawn = []
    for seed, position in places:
        with seeded(seed, position):
            drawn.append((random.random(), np.random.rand(), torch.rand(1).item()))
    for numbers in zip(*drawn, strict=True):
        assert len(set(numbers)) > len(places) - 2  # those of PyTorch have only 24 bits
        assert 0.4 < np.mean(numbers) < 0.6
    python, numpy, _ = np.corrcoef(np.transpose(drawn))
    assert abs(python[1]) < 0.2 and abs(python[2]) < 0.2 and abs(numpy[2]) < 0.2
