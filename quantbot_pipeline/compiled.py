"""How a kernel is compiled, and where its machine code is kept.

numba keeps machine code under the name of the kernel's own file and treats imported constants as part of the code. A constant
that changes in another file would leave the old machine code in use. So the folder of the cache is named after a digest of
every source file that holds a kernel or feeds one.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba

from quantbot_pipeline.machine_cache import cache_folder
from quantbot_pipeline.sources import source_digest

# Every package and file whose constants and functions kernels use.
FEEDS_KERNELS = ("replay", "search", "evidence", "market/features/kernels.py", "vocabulary.py")


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function with `numba.njit`, without the GIL, and keeps the machine code."""

    def decorate(function: Callable[..., Any]) -> Any:
        with _cache_folder():
            return numba.njit(nogil=True, cache=True, **options)(function)

    return decorate


@contextlib.contextmanager
def _cache_folder() -> Iterator[None]:
    """Point numba to our folder while it sets up the cache of one function; other code keeps its own."""
    settings: Any = numba.config  # its names are made when it loads
    before = settings.CACHE_DIR
    folder = _folder(before)
    settings.CACHE_DIR = before if folder is None else str(folder)
    try:
        yield
    finally:
        settings.CACHE_DIR = before


def kept_in() -> Path | None:
    """Return the folder of the machine code of these sources; None where nothing can be written."""
    return _folder(numba.config.CACHE_DIR)  # type: ignore[attr-defined]


def is_kept(kernel: Any) -> bool:
    """Whether machine code of a kernel was kept by an earlier process: then it loads, and need not be compiled."""
    folder = kept_in()
    return folder is not None and any(folder.rglob(f"*.{kernel.py_func.__name__}-*.nbi"))


def _folder(given: str) -> Path | None:
    """Return the folder of these sources below NUMBA_CACHE_DIR, beside the kernels, or in the user's cache.

    None where nothing can be written: numba then looks for a place itself, or says that there is none.
    """
    return cache_folder("kernels", _digest(), given)


@functools.cache
def _digest() -> str:
    return source_digest(FEEDS_KERNELS)
