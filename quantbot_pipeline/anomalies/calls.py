"""The calls that detectors see: what was said of them when, and what the candles up to the month's end say."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.anomalies.findings import Floats, Ints
from quantbot_pipeline.vocabulary import INCLUDED

Flags = npt.NDArray[np.bool_]
Texts = npt.NDArray[np.object_]


class Calls(NamedTuple):
    """All calls up to the end of the month, ascending by (alert, call_id), shapes (C,). Times in UTC ms.

    status: a position in CALL_STATUSES. p0: NaN without an entry. entry, t_peak: -1 where there is none. end: of the window.
    t_multiple: (C, 3), of 2x, 3x, 4x. dd_bps: of the window so far. exit_ts, exit_reason, win: of the replayed policy. late: taken in
    over 48 h after the alert. missing: a later ingest of the same source and caller covers it and does not have it.
    """

    mint: Texts
    caller: Texts
    alert: Ints
    status: npt.NDArray[np.uint8]
    p0: Floats
    entry: Ints
    end: Ints
    t_peak: Ints
    t_multiple: Ints
    dd_bps: Floats
    exit_ts: Ints
    exit_reason: npt.NDArray[np.uint8]
    win: Flags
    late: Flags
    missing: Flags

    @property
    def included(self) -> Flags:
        """Whether a call has a window."""
        return self.status == INCLUDED

    @property
    def hit_2x(self) -> Flags:
        """Whether the price had doubled by the month's end."""
        return self.t_multiple[:, 0] >= 0

    def settled(self, at: int) -> Flags:
        """Whether a call's whole window had ended by a time."""
        return self.included & (self.end <= at)


def rows_by(names: Texts, wanted: Flags) -> dict[str, Ints]:
    """Return the wanted rows of each name, ascending; names in byte order."""
    rows: dict[str, list[int]] = {}
    for row in np.flatnonzero(wanted).tolist():
        rows.setdefault(names[row], []).append(row)
    return {name: np.array(rows[name], np.int64) for name in sorted(rows, key=str.encode)}
