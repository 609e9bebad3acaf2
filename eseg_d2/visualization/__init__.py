"""Pictures of ground truth and predictions."""

from eseg_d2.visualization.panels import (
    contact_sheet,
    draw_instances,
    draw_panoptic,
    draw_semantic,
    side_by_side,
)

__all__ = ["contact_sheet", "draw_instances", "draw_panoptic", "draw_semantic", "side_by_side"]
