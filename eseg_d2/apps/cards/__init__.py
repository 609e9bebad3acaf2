"""Trained models to give away: the file of weights, and a card that says what it is."""

from eseg_d2.apps.cards.examples import example_metrics
from eseg_d2.apps.cards.pack import pack_run

__all__ = ["example_metrics", "pack_run"]
