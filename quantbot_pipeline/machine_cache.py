"""Where results that depend on code alone are kept between processes: beside the code, or in the user's cache.

Belongs here: which folder, and a text that is kept in it. Does not: anything that depends on a home or on data.
"""

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

STALE_S = 7 * 86_400.0  # what other code made goes when nobody has used it for a week


@functools.cache
def cache_folder(kind: str, digest: str, given: str = "") -> Path | None:
    """Return the folder `KIND-DIGEST` below `given`, else beside the code or in the user's cache; None where none can be written."""
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quantbot"
    for parent in [Path(given)] if given else [Path(__file__).parent / "__pycache__", users]:
        folder = parent / f"{kind}-{digest}"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                os.utime(folder)
            _sweep(parent, kind, folder)
            return folder
    return None


def kept_text(folder: Path | None, name: str, make: Callable[[], str]) -> str:
    """Return the text that an earlier process kept in the folder under this name, or make it and keep it.

    A digest stands before the text; a file that was damaged is made again.
    """
    if folder is None:
        return make()
    path = folder / name
    with contextlib.suppress(OSError, ValueError):
        digest, kept = path.read_bytes().split(b"\n", 1)
        if digest == _digest(kept):
            return kept.decode()
    text = make()
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(_digest(text.encode()) + b"\n" + text.encode())
        file.close()
        Path(file.name).replace(path)
    return text


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


def _sweep(parent: Path, kind: str, own: Path) -> None:
    for other in parent.glob(f"{kind}-*"):
        if other != own and time.time() - other.stat().st_mtime > STALE_S:
            shutil.rmtree(other, ignore_errors=True)
