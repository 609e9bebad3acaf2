"""Format what the doctor found as text, or as one self-contained HTML file."""

from collections.abc import Sequence

from tabulate import tabulate

from eseg_d2.apps.doctor.check import Report
from eseg_d2.apps.doctor.findings import KINDS, SEVERITIES
from eseg_d2.apps.doctor.statistics import TINY_AREA, DatasetStatistics
from eseg_d2.utils.markup import page_environment

__all__ = ["format_page", "format_report"]

_SHOWN, _SHOWN_ON_PAGE = 5, 100
_CLASS_HEAD = ("id", "class", "kind", "segments", "images", "pixels", "tiny")


def format_report(report: Report) -> str:
    """Return the first findings of each code, the classes of each data set, and the counts."""
    parts = [_findings(report), *(_dataset(dataset) for dataset in report.datasets)]
    parts += [_counts(report), _summary(report)]
    return "\n\n".join(part for part in parts if part)


def format_page(report: Report) -> str:
    """Return the report as HTML, for phones and desktops, light and dark."""
    return (
        page_environment("eseg_d2.apps.doctor")
        .get_template("page.html")
        .render(
            title=f"Data set check: {', '.join(d.source.name for d in report.datasets)}",
            summary=_summary(report),
            codes=report.by_code(),
            kinds=KINDS,
            shown=_SHOWN_ON_PAGE,
            class_head=_CLASS_HEAD,
            datasets=[
                {
                    "name": d.source.name,
                    "description": _describe(d),
                    "rows": zip(_class_rows(d), _shares(d), strict=True),
                }
                for d in report.datasets
                if d.records
            ],
        )
    )


def _shares(dataset: DatasetStatistics) -> list[float]:
    """Return the number of segments of each class in percent of the largest number."""
    largest = max(dataset.segments.values(), default=1)
    return [100 * dataset.segments[id_] / largest for id_ in dataset.categories]


def _summary(report: Report) -> str:
    """Return one line: the numbers of errors, warnings and notes."""
    counts = [(report.count(severity), severity) for severity in SEVERITIES]
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts)


def _findings(report: Report) -> str:
    blocks = []
    for code, findings in report.by_code().items():
        lines = [f"{KINDS[code].severity}: {code} ({len(findings)})"]
        lines += [f"  {f.dataset}: {f.message}" for f in findings[:_SHOWN]]
        if len(findings) > _SHOWN:
            lines.append(f"  ... and {len(findings) - _SHOWN} more; --json FILE lists all")
        blocks.append("\n".join([*lines, f"  Fix: {KINDS[code].fix}"]))
    return "\n\n".join(blocks)


def _counts(report: Report) -> str:
    rows = [
        (KINDS[code].severity, code, str(len(findings)))
        for code, findings in report.by_code().items()
    ]
    return _table(("severity", "code", "count"), rows, "llr") if rows else ""


def _dataset(dataset: DatasetStatistics) -> str:
    if not dataset.records:
        return ""
    title = f"{dataset.source.name}: {_describe(dataset)}"
    return f"{title}\n{_table(_CLASS_HEAD, _class_rows(dataset), 'rllrrrr')}"


def _describe(dataset: DatasetStatistics) -> str:
    """Return a data set's sizes in one line."""
    return (
        f"{dataset.records} images, {dataset.segments.total()} segments, "
        f"{dataset.tiny.total()} things below {TINY_AREA} pixels (tiny), "
        f"{_percent(dataset.share(dataset.void_pixels))} of the pixels void"
    )


def _class_rows(dataset: DatasetStatistics) -> list[tuple[str, ...]]:
    """Return the rows of the table of classes, in the json's order."""
    return [
        (
            str(id_),
            name,
            "thing" if is_thing else "stuff",
            str(dataset.segments[id_]),
            str(dataset.images[id_]),
            _percent(dataset.share(dataset.pixels[id_])),
            str(dataset.tiny[id_]) if is_thing else "",
        )
        for id_, (name, is_thing) in dataset.categories.items()
    ]


def _percent(share: float | None) -> str:
    """Return a share such as "12.34 %", or "?" if nothing was counted."""
    return "?" if share is None else f"{100 * share:.2f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Lay out columns; ``align`` has an l or r for each."""
    sides = [{"l": "left", "r": "right"}[side] for side in align]
    text = tabulate(rows, headers=head, tablefmt="plain", colalign=sides, disable_numparse=True)
    return "\n".join(line.rstrip() for line in text.splitlines())
