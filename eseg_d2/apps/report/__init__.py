"""Pages about runs and data sets, each one HTML file that needs no other."""

from eseg_d2.apps.report.html import dataset_page
from eseg_d2.apps.report.report import build_report
from eseg_d2.apps.report.samples import draw_samples

__all__ = ["build_report", "dataset_page", "draw_samples"]
