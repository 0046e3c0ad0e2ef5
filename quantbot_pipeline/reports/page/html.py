"""One self-contained HTML file that asks for nothing, not even when its data would like to.

What comes from outside is only ever inside the JSON block; the scripts put it into text nodes. Beside that, the page's content
security policy admits the two scripts written here by their hashes, no other script, and no connection.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

from quantbot_pipeline.durable import replace, scratch_folder, write_bytes
from quantbot_pipeline.reports.page.charts import KINDS
from quantbot_pipeline.reports.page.drawing import bundle

# Within <script> these could end the block or open a comment; JSON may spell any of them as an escape.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
SHARED = "quantbot_pipeline.reports.page"
FIRST_SCRIPTS = ("dom.js", "table.js", "charts.js", "theme.js")  # of every page


class Sources(NamedTuple):
    """What a page is made of: its package, whose `assets` come before the shared ones, its styles and further scripts.

    start: where its title leads, `#` and a place of the page.
    """

    package: str
    title: str
    start: str
    scripts: Sequence[str]
    styles: Sequence[str] = ("style.css",)

    def text(self, name: str) -> str:
        """Return an asset of the page's own package or, where it has none of the name, the shared one."""
        own = _assets(self.package) / name
        return (own if own.is_file() else _assets(SHARED) / name).read_text(encoding="utf-8")


def render(sources: Sources, data: dict[str, Any], charts: dict[str, Any]) -> str:
    """Return the page with this data, which may hold anything that JSON can."""
    vega = _script(bundle())
    texts = map(sources.text, (*FIRST_SCRIPTS, *sources.scripts))
    app = _script("(() => {\n'use strict';\n" + "\n".join(texts) + "\n})();\n")
    parts = {
        "policy": f"default-src 'none'; script-src {_hash(vega)} {_hash(app)}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'",
        "title": sources.title,
        "start": sources.start,
        "style": "\n".join(map(sources.text, sources.styles)),
        "data": json_block(data | {"kinds": KINDS, "charts": charts}),
        "vega": vega,
        "app": app,
    }
    # One pass, so that nothing inside a part is taken for a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], sources.text("page.html"))


def write_page(content: str, out: Path) -> Path:
    """Write a page atomically and return its absolute path."""
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(out.parent, f".{out.name}.") as folder:  # two may write it at once
        write_bytes(folder / out.name, content.encode())
        replace(folder / out.name, out)
    return out


def json_block(data: Any) -> str:
    """JSON for a `<script type="application/json">`: no character of it can end the block."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def _assets(package: str) -> Traversable:
    return resources.files(package) / "assets"


def _script(text: str) -> str:
    """Script text that a `<script>` element holds unchanged; the spelling of its strings may change, their value not."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r\n", "\n")


def _hash(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
