"""Libraries for a command without the libraries that they would look for, and that no command needs.

Belongs here: what pyarrow and numba import only to see whether it is there. Each looks once, finds none, and goes on.
"""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Without(MetaPathFinder):
    def __init__(self, hidden: str) -> None:
        self._hidden = hidden

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == self._hidden:
            raise ModuleNotFoundError(name=name)
        return None


@contextlib.contextmanager
def _without(hidden: str) -> Iterator[None]:
    """Hide a library that is not loaded yet for as long as the block lasts."""
    finder = _Without(hidden)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def arrow_without_pandas() -> None:
    """Have pyarrow look for pandas once, now, and find none. `to_pandas` looks again: who asks for a frame gets one.

    pyarrow imports pandas (0.6 s) at the first Python value that it converts, only to tell a Series from a list.
    """
    with _without("pandas"):
        import pyarrow as pa

        pa.scalar("")


def kernels_without_scipy() -> None:
    """Have numba look for scipy once, now, and find none: no kernel multiplies matrices. Others may import it later.

    numba imports scipy and its linear algebra (0.2 s) with the first kernel that it loads.
    """
    with _without("scipy"):
        import numba.np.arraymath  # noqa: F401  (it asks for BLAS)
