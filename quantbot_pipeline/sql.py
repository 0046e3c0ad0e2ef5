"""How a string from outside stands in a SQL statement where no parameter can.

Belongs here: quoting, for every package that talks to DuckDB. Values travel as parameters wherever DuckDB takes them.
"""

import re


def quoted(name: str) -> str:
    """A column or table name as a SQL identifier, whatever it contains."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A SQL string literal, for views: they cannot have parameters."""
    return "'" + text.replace("'", "''") + "'"


def escape_glob(path: str) -> str:
    """A path as a DuckDB glob pattern that matches only itself."""
    return re.sub(r"([*?\[])", r"[\1]", path)
