"""The data set doctor: finds what is wrong with a panoptic data set before a training does."""

from eseg_d2.apps.doctor.check import Report, check_datasets, quick_check
from eseg_d2.apps.doctor.report import format_page, format_report
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
