"""Pictures of truth and predictions."""

from eseg_d2.visualization.brightness import keep_colors_valid
from eseg_d2.visualization.panels import (
    contact_sheet,
    draw_instances,
    draw_panoptic,
    draw_semantic,
    side_by_side,
)

keep_colors_valid()

__all__ = ["contact_sheet", "draw_instances", "draw_panoptic", "draw_semantic", "side_by_side"]
