"""Pages by Jinja2, each one HTML file that holds its style, script and pictures."""

import base64
import hashlib

from eseg_d2.apps.report.samples import SampleSet
from eseg_d2.utils.markup import page_environment

__all__ = ["MAX_BYTES", "dataset_page", "render"]

MAX_BYTES = 10_000_000
"""The limit of a page; pictures that do not fit are left out, and the page says so."""


def render(template: str, **content) -> str:
    """Fill in a template of this package, with everything in ``content`` escaped.

    The page tells browsers to load nothing, and to run no script but its own.
    """
    environment = page_environment("eseg_d2.apps.report")
    environment.filters["number"] = _number
    environment.filters["signed"] = _signed
    environment.filters["time"] = lambda t: t.strftime("%Y-%m-%d %H:%M") if t else "unknown"
    script = environment.loader.get_source(environment, "page.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(script=script, script_hash=digest, **content)


def dataset_page(samples: SampleSet, seed: int) -> str:
    """Return a page that shows samples of a data set, which were drawn with ``seed``."""
    absent = [c.name for c in samples.classes if not c.samples]
    present = sorted((c for c in samples.classes if c.samples), key=lambda c: -c.share)
    return render(
        "dataset.html",
        title=f"Ground truth: {samples.dataset}",
        data=samples,
        seed=seed,
        present=present,
        absent=absent,
        largest=max((c.share for c in present), default=1.0),
    )


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    """Return a difference with its sign."""
    return "" if value is None else f"{value:+.1f}".replace("-", "−")
