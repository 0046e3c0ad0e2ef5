"""`python -m examples.render`: run every example on the sample market and write its code and output into docs/analysis.md.

The figure of docs/evidence.md is drawn on the same home.

Belongs here: how a snippet is run and shown. Between `<!-- sql/x.sql -->` and `<!-- end -->` the page is generated; the rest is
written by hand. A test fails when page and output differ.
"""

import ast
import contextlib
import io
import json
import os
import re
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

from examples.account import FIGURE, account, draw
from examples.lab import make_lab
from quantbot_pipeline.cli.main import main as quantbot

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "analysis.md"
SNIPPET = re.compile(r"<!-- (\S+\.(?:sql|py|ipynb)) -->\n.*?<!-- end -->", re.DOTALL)


def rendered(page: str, home: Path) -> str:
    """The page with every snippet's code and output as they are on this home."""
    return SNIPPET.sub(lambda found: _block(HERE / found[1], home), page)


def output(path: Path, home: Path) -> str:
    """What an example prints: a query through `quantbot query`, a script as it is."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), _environment(QUANTBOT_HOME=str(home)):
        if path.suffix == ".sql":
            _quantbot("query", f"@{path}")
        else:
            runpy.run_path(str(path), run_name="__main__")
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    if path.suffix == ".sql":
        del lines[0]  # how many rows: a reader sees that
    return "\n".join(lines).strip("\n")


def _block(path: Path, home: Path) -> str:
    if path.suffix == ".ipynb":
        return _notebook(path, home)
    language = "sql" if path.suffix == ".sql" else "python"
    name = path.relative_to(HERE).as_posix()
    return (
        f"<!-- {name} -->\n[examples/{name}](../examples/{name})\n\n```{language}\n{path.read_text().strip()}\n```\n\n"
        f"```text\n{output(path, home)}\n```\n<!-- end -->"
    )


def _notebook(path: Path, home: Path) -> str:
    """A notebook's words, code and what each cell shows; its title is that of the page's section."""
    name, parts = path.relative_to(HERE).as_posix(), []
    names: dict[str, Any] = {}
    with _environment(QUANTBOT_HOME=str(home)):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(re.sub(r"^# .*\n+", "", re.sub(r"^## ", "### ", text)))
            else:
                shown = _shown_by(text, names)
                parts.append(f"```python\n{text}\n```" + (f"\n\n```text\n{shown}\n```" if shown else ""))
    return f"<!-- {name} -->\n[examples/{name}](../examples/{name})\n\n" + "\n\n".join(parts) + "\n<!-- end -->"


def _shown_by(text: str, names: dict[str, Any]) -> str:
    """Run a cell; return what it prints and the value of its last expression, as a notebook shows them."""
    body = ast.parse(text).body
    last = ast.Expression(end.value) if isinstance(end := body[-1], ast.Expr) else None
    if last is not None:
        body.pop()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        value = None if last is None else eval(compile(last, "cell", "eval"), names)
        if value is not None:
            print(value.to_string() if hasattr(value, "to_string") else value)
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines()).strip("\n")


def _quantbot(*arguments: str) -> None:
    given, sys.argv = sys.argv, ["quantbot", *arguments]
    try:
        quantbot()
    except SystemExit as e:
        if e.code:
            raise RuntimeError(f"quantbot {' '.join(arguments)}: exit status {e.code}") from None
    finally:
        sys.argv = given


@contextlib.contextmanager
def _environment(**values: str):  # type: ignore[no-untyped-def]
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        lab = make_lab(Path(folder), models=True)
        FIGURE.write_text(draw(account(lab)))
        PAGE.write_text(rendered(PAGE.read_text(), Path(folder)))
    print(PAGE)
