"""What the pages draw with: the charts' specifications and Vega's script, which depend on code alone.

They take seconds to make, so that one process makes them for all on this machine.
"""

import functools
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quantbot_pipeline.machine_cache import cache_folder, kept_text
from quantbot_pipeline.sources import source_digest

MADE_OF = (
    "reports/dashboard",
    "reports/page",
    "reports/tearsheet",
    "replay",
    "vocabulary.py",
)  # beside the two libraries
Specifications = dict[str, dict[str, Any]]


@functools.cache
def specifications(page: str, make: Callable[[], Specifications]) -> Specifications:
    """{chart: Vega-Lite specification} of a page; the data names in them are what the page must supply."""
    made: Specifications = json.loads(kept_text(_folder(), f"{page}.json", lambda: json.dumps(make())))
    return made


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that needs no network."""
    return kept_text(_folder(), "vega.js", _vega)


def _folder() -> Path | None:
    versions = "-".join(version(name) for name in ("altair", "vl-convert-python"))
    return cache_folder("charts", f"{source_digest(MADE_OF)}-{versions}")


def _vega() -> str:
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
