"""Digests of this package's own source files: what tells one state of the code from another.

Belongs here: which bytes count and how they are hashed. Does not: what a digest is used for.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def source_digest(parts: Iterable[str], root: Path = ROOT) -> str:
    """Return 16 hex digits that change with any Python source file of these parts.

    parts: names of files (`config.py`) and folders (`replay`) of the package; a part that is not there adds nothing.
    """
    digest = hashlib.sha256()
    for part in sorted(set(parts)):
        place = root / part
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place] if place.exists() else []:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
