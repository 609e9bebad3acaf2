"""The dataset doctor: finds what is wrong with a panoptic data set before it is trained on."""

from eseg_d2.apps.doctor.page import format_page
from eseg_d2.apps.doctor.quick import quick_check
from eseg_d2.apps.doctor.report import format_report
from eseg_d2.apps.doctor.run import Report, check_datasets
from eseg_d2.apps.doctor.sources import Source, sources_from_config, sources_from_names

__all__ = [
    "Report",
    "Source",
    "check_datasets",
    "format_page",
    "format_report",
    "quick_check",
    "sources_from_config",
    "sources_from_names",
]
