"""A quick check before training: every json, and a few files."""

import logging

from detectron2.config import CfgNode

from eseg_d2.apps.doctor.entries import Record
from eseg_d2.apps.doctor.files import check_files
from eseg_d2.apps.doctor.findings import KINDS, SEVERITIES
from eseg_d2.apps.doctor.run import check_json, classes_of, make_report
from eseg_d2.apps.doctor.sources import sources_from_config
from eseg_d2.utils.text import listing

__all__ = ["quick_check"]

logger = logging.getLogger(__name__)

_SHOWN = 5


def quick_check(cfg: CfgNode, *, eval_only: bool, sample: int = 16) -> None:
    """Check the panoptic data sets of a config: the jsons, and some files; log the warnings.

    Args:
        cfg: DATASETS is read.
        eval_only: leave DATASETS.TRAIN out.
        sample: images of each data set whose files are checked, evenly spread; at least 1.

    Raises:
        ValueError: there are errors; the message names the first ones and their repair.
    """
    jsons = [check_json(source) for source in sources_from_config(cfg, eval_only=eval_only)]
    records = [record for check in jsons for record in _spread(check.records, sample)]
    classes = classes_of(jsons)
    report = make_report(jsons, records, [check_files(record, classes) for record in records])
    texts = {severity: [] for severity in SEVERITIES}
    for code, findings in report.by_code().items():
        kind = KINDS[code]
        messages = listing(f.message for f in findings)
        texts[kind.severity].append(f"{code} ({len(findings)}): {messages}. {kind.fix}")
    if texts["error"]:
        first = "\n  ".join(texts["error"][:_SHOWN])
        raise ValueError(
            f"the data sets have {report.count('error')} errors in their jsons and in the "
            f"{len(records)} images that were looked at:\n  {first}\n"
            "  To check every file: python tools/check_dataset.py. "
            "To train nevertheless: DATASETS.QUICK_CHECK False."
        )
    for text in texts["warning"]:
        logger.warning("Data set: %s", text)


def _spread(records: list[Record], count: int) -> list[Record]:
    count = min(count, len(records))
    return [records[i * len(records) // count] for i in range(count)]
