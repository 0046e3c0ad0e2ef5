"""Calls that somebody asks about and does not store: judged as an ingest judges them, in a scratch store that is gone afterwards."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.calls import ingest_calls
from quantbot_pipeline.market.calls import CallStore, read_calls
from quantbot_pipeline.months import parse_moment

ALWAYS = (0, 1 << 62)
ONE_OF = "score wants files of calls, or --since TIME for calls of the store: give one of the two"


def calls_since(store: CallStore, since: str) -> pa.Table:
    """Return the calls of a store from a UTC time on. Raises InputError for what is no time."""
    try:
        first = parse_moment(since)
    except InputError as e:
        raise InputError(f"--since {e}") from None
    return read_calls(store, first, ALWAYS[1]).calls


def unstored_calls(paths: Sequence[Path], like: CallStore) -> tuple[pa.Table, list[str]]:
    """Return the calls of files, by time, and what to say of those that were rejected.

    like: the store whose memory and patience to have. Raises InputError for files without a usable call.
    """
    with tempfile.TemporaryDirectory(prefix="quantbot-score-") as folder:
        store = CallStore(Path(folder) / "alerts.duckdb", like.memory_limit, like.lock_timeout_s)
        ingest_calls(paths, store).require_some()
        read = read_calls(store, *ALWAYS)
    return read.calls, [f"{rows} calls rejected: {reason}" for reason, rows in read.rejected.items()]
