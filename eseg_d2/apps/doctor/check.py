"""Check data sets: first their jsons, then their files, either all in parallel or a sample."""

import gc
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from detectron2.config import CfgNode

from eseg_d2.apps.doctor.findings import KINDS, SEVERITIES, Finding, sort_findings
from eseg_d2.apps.doctor.image_files import FileCheck, check_files, internal
from eseg_d2.apps.doctor.json_file import EntryCheck, Record, check_categories, read_content
from eseg_d2.apps.doctor.sources import Source, sources_from_config
from eseg_d2.apps.doctor.statistics import (
    DatasetStatistics,
    compare_datasets,
    find_duplicates,
    find_unlisted,
)
from eseg_d2.utils.errors import listing
from eseg_d2.utils.parallel import map_in_processes, number_of_workers

__all__ = ["Report", "check_datasets", "quick_check"]

logger = logging.getLogger(__name__)

_SHOWN = 5


@dataclass
class Report:
    """What is wrong with data sets, the worst first, and statistics of each data set."""

    findings: list[Finding]
    datasets: list[DatasetStatistics]

    def count(self, severity: str) -> int:
        """Return the number of findings of a severity."""
        return sum(f.severity == severity for f in self.findings)

    def by_code(self) -> dict[str, list[Finding]]:
        """Return the findings of each code, the worst codes first."""
        groups: dict[str, list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault(finding.code, []).append(finding)
        return groups

    def as_dict(self) -> dict:
        """Return the report as a json can hold it."""
        return {
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "codes": Counter(f.code for f in self.findings),
            "findings": [f.as_dict() for f in self.findings],
            "datasets": [d.as_dict() for d in self.datasets],
        }


@dataclass
class _JsonCheck:
    """The result of checking one json; ``image_files`` also has the images without annotation."""

    findings: list[Finding]
    records: list[Record]
    statistics: DatasetStatistics
    image_files: list[str]


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable garbage collection, which takes most of the time among millions of new objects."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_garbage_collection()
def _check_json(source: Source) -> _JsonCheck:
    """Check the json of a data set; no other file is opened."""
    statistics = DatasetStatistics(source)
    content, findings = read_content(source)
    if content is None:
        return _JsonCheck(findings, [], statistics, [])
    classes, wrong = check_categories(source, content["categories"])
    statistics.categories, statistics.comparable = classes.by_id, classes.sound
    entries = EntryCheck(source, content, classes)
    statistics.complete = all(finding.severity != "error" for finding in entries.findings)
    for record in entries.records:
        statistics.add_segments(record.segments)
    return _JsonCheck(
        findings + wrong + entries.findings, entries.records, statistics, entries.image_files
    )


def check_datasets(sources: Sequence[Source], *, workers: int | None = None) -> Report:
    """Check every file of data sets, with a progress bar.

    Args:
        sources: the data sets.
        workers: number of processes; by default one for each CPU this process may use.

    Raises:
        ValueError: ``workers`` is below 1.
    """
    workers = number_of_workers(workers)
    jsons = [_check_json(source) for source in sources]
    records = [record for check in jsons for record in check.records]
    results = map_in_processes(
        check_files,
        records,
        workers,
        "checking",
        if_killed=lambda record, reason: FileCheck([internal(record, reason)]),
    )
    report = _make_report(jsons, records, results)
    files = {check.statistics.source: check.image_files for check in jsons}
    report.findings = sort_findings(report.findings + find_unlisted(files, report.findings))
    return report


def _make_report(
    jsons: Sequence[_JsonCheck], records: Sequence[Record], results: Sequence[FileCheck]
) -> Report:
    """Combine the results of the jsons with one result for each record that was checked."""
    datasets = {check.statistics.source.name: check.statistics for check in jsons}
    findings = [finding for check in jsons for finding in check.findings]
    for record, result in zip(records, results, strict=True):
        findings += result.findings
        datasets[record.dataset].add_files(result)
    findings += compare_datasets(datasets.values())
    digests = [result.digest for result in results]
    findings += find_duplicates([d.source for d in datasets.values()], records, digests)
    return Report(sort_findings(findings), list(datasets.values()))


def quick_check(cfg: CfgNode, *, eval_only: bool, sample: int = 16) -> None:
    """Check the jsons and some files of a config's panoptic data sets, and log the warnings.

    Args:
        cfg: DATASETS is read.
        eval_only: leave DATASETS.TRAIN out.
        sample: number of images of each data set whose files are checked, evenly spread; at
            least 1.

    Raises:
        ValueError: there are errors; the message names the first ones and how to fix them.
    """
    jsons = [_check_json(source) for source in sources_from_config(cfg, eval_only=eval_only)]
    records = [record for check in jsons for record in _spread(check.records, sample)]
    report = _make_report(jsons, records, [check_files(record) for record in records])
    texts = {severity: [] for severity in SEVERITIES}
    for code, findings in report.by_code().items():
        kind = KINDS[code]
        messages = listing(f.message for f in findings)
        texts[kind.severity].append(f"{code} ({len(findings)}): {messages}. {kind.fix}")
    if texts["error"]:
        first = "\n  ".join(texts["error"][:_SHOWN])
        raise ValueError(
            f"the data sets have {report.count('error')} errors in their jsons and in the "
            f"{len(records)} images that were checked:\n  {first}\n"
            "  To check every file: python tools/check_dataset.py. "
            "To train anyway: DATASETS.QUICK_CHECK False."
        )
    for text in texts["warning"]:
        logger.warning("Data set: %s", text)


def _spread(records: list[Record], count: int) -> list[Record]:
    count = min(count, len(records))
    return [records[i * len(records) // count] for i in range(count)]
