"""Pages by Jinja2: one HTML file each, with style, script and pictures inside."""

import base64
import hashlib
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from eseg_d2.apps.report.samples import SampleSet

__all__ = ["MAX_BYTES", "dataset_page", "render"]

MAX_BYTES = 10_000_000
"""What a page stays below; pictures that would not fit are left out, and the page says so."""


def render(template: str, **content) -> str:
    """A template of this package, everything in ``content`` escaped.

    The page tells browsers to load nothing, and to run no script but its own.
    """
    environment = Environment(
        loader=PackageLoader("eseg_d2.apps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["signed"] = _signed
    environment.filters["time"] = lambda t: t.strftime("%Y-%m-%d %H:%M") if t else "unknown"
    script = environment.loader.get_source(environment, "page.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(script=script, script_hash=digest, **content)


def dataset_page(samples: SampleSet, seed: int) -> str:
    """Samples of a data set as HTML.

    Args:
        samples: to show.
        seed: that chose them.
    """
    absent = [c.name for c in samples.classes if not c.samples]
    present: Sequence = sorted((c for c in samples.classes if c.samples), key=lambda c: -c.share)
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
    """A difference with its sign."""
    return "" if value is None else f"{value:+.1f}".replace("-", "−")
