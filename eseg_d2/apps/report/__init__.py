"""Pages about trainings and data sets: one HTML file each, without any other."""

from eseg_d2.apps.report.build import build_report
from eseg_d2.apps.report.page import dataset_page
from eseg_d2.apps.report.samples import draw_samples

__all__ = ["build_report", "dataset_page", "draw_samples"]
