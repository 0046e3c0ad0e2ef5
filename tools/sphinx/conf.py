"""Sphinx's configuration of the documentation; `tools.docs_site` lays the pages out and runs Sphinx with it."""

import logging
from typing import Any

from pydantic import BaseModel

from quantbot_pipeline.version import __version__

# autodoc imports Dagster's storage. Its migrations log that they are there, and any line on standard error is a fault.
logging.getLogger("alembic").setLevel(logging.WARNING)

project = "quantbot"
version = release = __version__
copyright = "the quantbot-pipeline authors"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4  # links to headings as a code host makes them
default_role = "literal"  # docstrings write `code` with one backtick, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
# Modules import it for its type alone; by its name alone it could be that of `api` too.
autodoc_type_aliases = {"Home": "quantbot_pipeline.home.Home"}
python_maximum_signature_line_length = 100
suppress_warnings = [
    "misc.highlighting_failure",  # examples leave things out with …, which no lexer knows
    "ref.python",  # `Home` in a signature: the public one and the one it adds to
]

html_theme = "furo"
html_title = "quantbot"
html_show_sphinx = False
html_copy_source = False


def add_fields(_app: Any, what: str, _name: str, documented: Any, _options: Any, lines: list[str]) -> None:
    """Append the fields of a pydantic model with their descriptions, which autodoc does not know."""
    if what == "class" and issubclass(documented, BaseModel):
        told = {name: field.description for name, field in documented.model_fields.items() if field.description}
        lines += ["", *(f":param {name}: {text}" for name, text in told.items()), ""]


def is_left_out(_app: Any, _what: str, _name: str, documented: Any, _skip: bool, _options: Any) -> bool | None:
    """Leave out the fields of a named tuple: the class lists them, and Python's own words say nothing about them."""
    return True if str(documented.__doc__).startswith("Alias for field number") else None


def setup(app: Any) -> None:
    """Connect the hooks of this file with Sphinx."""
    app.connect("autodoc-process-docstring", add_fields)
    app.connect("autodoc-skip-member", is_left_out)
