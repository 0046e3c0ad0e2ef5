"""What one process remembers from month to month, so that a run over several months does nothing twice.

Belongs here: the type, and which entries go. Does not: what an entry means; whoever
makes it names it, and puts into its key or beside its value all that it depends on.
"""

from collections.abc import Collection
from typing import Any

# Keys begin with the kind of the entry; then month, fingerprint, config hash, and whatever else tells entries apart.
ReplayCache = dict[tuple[str, ...], Any]


def forget_others(cache: ReplayCache, kind: str, wanted: Collection[tuple[str, ...]]) -> None:
    """Drop entries of a kind that nobody will ask for: those of inputs that have changed since."""
    for key in [key for key in cache if key[0] == kind and key not in wanted]:
        del cache[key]
