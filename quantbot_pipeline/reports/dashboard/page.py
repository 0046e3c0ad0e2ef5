"""The page: one self-contained HTML file that asks for nothing, not even when its data would like to.

What comes from outside is only ever inside the JSON block; the scripts put it into text nodes. Beside that, the page's content
security policy admits the two scripts written here by their hashes, no other script, and no connection.
"""

import base64
import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from quantbot_pipeline.durable import replace, scratch_folder, write_bytes
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.dashboard.data import collect
from quantbot_pipeline.reports.dashboard.drawing import bundle, specifications

STYLES = ("style.css",)
SCRIPTS = (
    "dom.js",
    "table.js",
    "charts.js",
    "evidence.js",
    "callers.js",
    "policies.js",
    "runs.js",
    "searches.js",
    "market.js",
    "app.js",
)
# Within <script> these could end the block or open a comment; JSON may spell any of them as an escape.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def write_dashboard(home: Home, out: Path | None = None) -> Path:
    """Write the dashboard over the newest runs to `out` (default: in the home), atomically, and return its absolute path.

    The candle store may be gone: then single calls have no pictures. Raises InputError without a catalog, IntegrityError when an artifact of a newest run
    was changed.
    """
    out = (out or home.settings.dashboard_html).absolute()
    content = render(collect(home))
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out.parent, f".{out.name}.") as folder:  # two may write it at once
        write_bytes(folder / out.name, content.encode())
        replace(folder / out.name, out)
    return out


def render(data: dict[str, Any]) -> str:
    """The page with this data; `data` as `collect` returns it."""
    vega = _script(bundle())
    app = _script("(() => {\n'use strict';\n" + "\n".join(map(_asset, SCRIPTS)) + "\n})();\n")
    parts = {
        "policy": f"default-src 'none'; script-src {_hash(vega)} {_hash(app)}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'",
        "style": "\n".join(map(_asset, STYLES)),
        "data": json_block(data | {"charts": specifications()}),
        "vega": vega,
        "app": app,
    }
    # One pass, so that nothing inside a part is taken for a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))


def json_block(data: Any) -> str:
    """JSON for a `<script type="application/json">`: no character of it can end the block."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def _asset(name: str) -> str:
    return (resources.files("quantbot_pipeline.reports.dashboard") / "assets" / name).read_text(encoding="utf-8")


def _script(text: str) -> str:
    """Script text that a `<script>` element holds unchanged; the spelling of its strings may change, their value not."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r\n", "\n")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
