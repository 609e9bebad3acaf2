"""Check data sets: their jsons first, then their files in parallel."""

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from tqdm import tqdm

from eseg_d2.apps.doctor.content import Category, check_categories, read_content
from eseg_d2.apps.doctor.duplicates import find_duplicates
from eseg_d2.apps.doctor.entries import EntryCheck, Record
from eseg_d2.apps.doctor.files import FileCheck, check_files, internal
from eseg_d2.apps.doctor.findings import SEVERITIES, Finding, sort_findings
from eseg_d2.apps.doctor.pool import WorkerDied, run_in_processes
from eseg_d2.apps.doctor.sources import Source
from eseg_d2.apps.doctor.statistics import DatasetStatistics, compare_datasets
from eseg_d2.apps.doctor.unlisted import find_unlisted
from eseg_d2.utils.parallel import number_of_workers

__all__ = ["JsonCheck", "Report", "check_datasets", "check_json", "classes_of", "make_report"]


@dataclass
class Report:
    """All that the check of some data sets told.

    Attributes:
        findings: the worst first.
        datasets: their statistics.
    """

    findings: list[Finding]
    datasets: list[DatasetStatistics]

    def count(self, severity: str) -> int:
        """Number of findings of a severity."""
        return sum(f.severity == severity for f in self.findings)

    def by_code(self) -> dict[str, list[Finding]]:
        """The findings of each code, the worst codes first."""
        groups: dict[str, list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault(finding.code, []).append(finding)
        return groups

    def as_dict(self) -> dict:
        """For a json."""
        return {
            "counts": {severity: self.count(severity) for severity in SEVERITIES},
            "codes": Counter(f.code for f in self.findings),
            "findings": [f.as_dict() for f in self.findings],
            "datasets": [d.as_dict() for d in self.datasets],
        }


@dataclass
class JsonCheck:
    """What the json of one data set tells.

    Attributes:
        findings: what is wrong.
        records: its annotated images.
        statistics: of its classes.
        image_files: paths of all its images, annotated or not.
    """

    findings: list[Finding]
    records: list[Record]
    statistics: DatasetStatistics
    image_files: list[str]


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """It runs again and again among millions of new objects, and takes most of the time then."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_garbage_collection()
def check_json(source: Source) -> JsonCheck:
    """Check the json of a data set; no other file is opened."""
    statistics = DatasetStatistics(source)
    content, findings = read_content(source)
    if content is None:
        return JsonCheck(findings, [], statistics, [])
    classes, wrong = check_categories(source, content["categories"])
    statistics.categories, statistics.comparable = classes.by_id, classes.sound
    entries = EntryCheck(source, content, classes)
    statistics.complete = all(finding.severity != "error" for finding in entries.findings)
    for record in entries.records:
        statistics.add_segments(record.segments)
    return JsonCheck(
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
    jsons = [check_json(source) for source in sources]
    records = [record for check in jsons for record in check.records]
    check = partial(check_files, classes=classes_of(jsons))
    results = [FileCheck([])] * len(records)
    with tqdm(total=len(records), desc="checking", unit="image") as bar:
        for index, result in run_in_processes(check, records, workers):
            if isinstance(result, WorkerDied):
                result = FileCheck([internal(records[index], str(result))])
            results[index] = result
            bar.update()
    report = make_report(jsons, records, results)
    files = {check.statistics.source: check.image_files for check in jsons}
    report.findings = sort_findings(report.findings + find_unlisted(files, report.findings))
    return report


def classes_of(jsons: Sequence[JsonCheck]) -> dict[str, dict[int, Category]]:
    """Categories of each data set, as :func:`check_files` takes them."""
    return {check.statistics.source.name: check.statistics.categories for check in jsons}


def make_report(
    jsons: Sequence[JsonCheck], records: Sequence[Record], results: Sequence[FileCheck]
) -> Report:
    """Put together what the jsons and the files told.

    Args:
        jsons: one a data set.
        records: those whose files were checked.
        results: one a record.
    """
    datasets = {check.statistics.source.name: check.statistics for check in jsons}
    findings = [finding for check in jsons for finding in check.findings]
    for record, result in zip(records, results, strict=True):
        findings += result.findings
        datasets[record.dataset].add_files(result)
    findings += compare_datasets(datasets.values())
    digests = [result.digest for result in results]
    findings += find_duplicates([d.source for d in datasets.values()], records, digests)
    return Report(sort_findings(findings), list(datasets.values()))
