"""pyarrow for a command: without pandas, which a command does not need.

pyarrow imports pandas (0.6 s) at the first Python value that it converts, only to tell a Series from a list.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)
        return None


def arrow_without_pandas() -> None:
    """Have pyarrow look for pandas once, now, and find none. `to_pandas` looks again: who asks for a frame gets one."""
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.scalar("")
    finally:
        sys.meta_path.remove(finder)
