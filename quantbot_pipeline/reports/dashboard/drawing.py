"""What the page draws with: the charts' specifications and Vega's script, which depend on code alone.

They take seconds to make, so that one process makes them for all on this machine.
"""

import functools
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quantbot_pipeline.machine_cache import cache_folder, kept_text
from quantbot_pipeline.sources import source_digest

MADE_OF = ("reports/dashboard", "replay", "vocabulary.py")  # beside the two libraries


@functools.cache
def specifications() -> dict[str, dict[str, Any]]:
    """{chart: Vega-Lite specification}; the data names in them are what the page must supply."""
    made: dict[str, dict[str, Any]] = json.loads(kept_text(_folder(), "charts.json", _charts))
    return made


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script that needs no network."""
    return kept_text(_folder(), "vega.js", _vega)


def _folder() -> Path | None:
    versions = "-".join(version(name) for name in ("altair", "vl-convert-python"))
    return cache_folder("charts", f"{source_digest(MADE_OF)}-{versions}")


def _charts() -> str:
    from quantbot_pipeline.reports.dashboard.charts import charts

    return json.dumps(charts())


def _vega() -> str:
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
