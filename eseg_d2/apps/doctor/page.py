"""What the doctor found, as one HTML file without any other."""

from collections.abc import Sequence
from html import escape

from eseg_d2.apps.doctor.findings import KINDS, SEVERITIES
from eseg_d2.apps.doctor.report import CLASS_HEAD, class_rows, describe, summary
from eseg_d2.apps.doctor.run import Report
from eseg_d2.apps.doctor.statistics import DatasetStatistics

__all__ = ["format_page"]

_SHOWN = 100

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bar: #3a7bd5;
  --error: #c62828; --warning: #b26a00; --note: #4a6a8a; }
@media (prefers-color-scheme: dark) {
  :root { --bar: #6aa5f0; --error: #ff7b72; --warning: #f0b450; --note: #9ab4d0; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: auto; padding: 1rem;
  background: Canvas; color: CanvasText; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
.error, .warning, .note { font-weight: 600; }
.error { color: var(--error); } .warning { color: var(--warning); } .note { color: var(--note); }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0;
  padding: .4rem .8rem; }
summary { cursor: pointer; }
li { overflow-wrap: anywhere; }
.fix { background: var(--soft); padding: .3rem .6rem; border-radius: .3rem; }
.bar { min-width: 8rem; width: 30%; }
.bar div { background: var(--bar); height: .9rem; border-radius: .2rem; min-width: 1px; }
"""


def format_page(report: Report) -> str:
    """The report as HTML, for phones and desktops, light and dark."""
    title = f"Data set check: {', '.join(d.source.name for d in report.datasets)}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(summary(report))}</p>",
        _counts(report),
        *(_findings(report)),
        *(_dataset(dataset) for dataset in report.datasets if dataset.records),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _counts(report: Report) -> str:
    rows = [
        [
            f'<td class="{KINDS[code].severity}">{KINDS[code].severity}</td>',
            f"<td>{code}</td>",
            _number(len(findings)),
        ]
        for code, findings in report.by_code().items()
    ]
    return _table(["severity", "code", "count"], rows, numbers={2}) if rows else ""


def _findings(report: Report) -> list[str]:
    parts = ["<h2>Findings</h2>"] if report.findings else []
    for code, findings in report.by_code().items():
        severity = KINDS[code].severity
        items = [f"<li>{escape(f.dataset)}: {escape(f.message)}</li>" for f in findings[:_SHOWN]]
        if len(findings) > _SHOWN:
            items.append(f"<li>... and {len(findings) - _SHOWN} more, all are in --json</li>")
        is_open = " open" if severity == SEVERITIES[0] else ""
        parts.append(
            f'<details{is_open}><summary><span class="{severity}">{severity}</span> {code} '
            f'({len(findings)})</summary><p class="fix">{escape(KINDS[code].fix)}</p>'
            f"<ul>{''.join(items)}</ul></details>"
        )
    return parts


def _dataset(dataset: DatasetStatistics) -> str:
    largest = max(dataset.segments.values(), default=1)
    rows = []
    for id_, cells in zip(dataset.categories, class_rows(dataset), strict=True):
        width = 100 * dataset.segments[id_] / largest
        bar = f'<td class="bar"><div style="width: {width:.1f}%"></div></td>'
        number, name, kind, *counts = cells
        rows.append(
            [_number(number), f"<td>{escape(name)}</td>", f"<td>{kind}</td>"]
            + [_number(count) for count in counts]
            + [bar]
        )
    head = [*CLASS_HEAD, "segments by class"]
    table = _table(head, rows, numbers={0, 3, 4, 5, 6})
    return f"<h2>{escape(dataset.source.name)}</h2>\n<p>{escape(describe(dataset))}</p>\n{table}"


def _number(value: int | str) -> str:
    return f'<td class="number">{value}</td>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> str:
    """Rows of finished cells; ``numbers`` are the columns that are aligned to the right."""
    titles = "".join(
        f'<th class="number">{title}</th>' if i in numbers else f"<th>{title}</th>"
        for i, title in enumerate(head)
    )
    lines = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>\n<tr>{titles}</tr>\n{lines}\n</table></div>'
