"""Hand-made outcomes: what a replay would have left behind, for tests of what is computed from it.

One `Exit` per (call, policy) becomes the engine's arrays, with excluded calls between the included ones, so that an index
into the wrong kind of row shows.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.replay import engine
from quantbot_pipeline_tests.search.reference import Exit


def as_arrays(calls: Sequence[Sequence[Exit]]) -> tuple[engine.Truth, engine.Outcomes, npt.NDArray[np.int64]]:
    """(truth, outcomes, rows of the calls) of calls x policies; every third row is an excluded call full of nonsense."""
    rows = np.array([i + i // 2 for i in range(len(calls))], dtype=np.int64)
    total = int(rows[-1]) + 1 if len(rows) else 0
    truth, outcomes = engine.empty_truth(total), engine.empty_outcomes(total, len(calls[0]) if calls else 0)
    for column in outcomes:
        column[:] = 77
    for at, exits in zip(rows, calls, strict=True):
        truth.status[at] = engine.INCLUDED
        truth.p0[at], truth.entry_ts[at] = exits[0].p0, exits[0].entry_ts
        truth.peak[at] = exits[0].peak * exits[0].p0
        for p, left in enumerate(exits):
            outcomes.exit_ts[at, p], outcomes.exit_px[at, p] = left.exit_ts, left.exit_px
            outcomes.reason[at, p], outcomes.mae_bps[at, p] = engine.REASONS.index(left.reason), left.mae_bps
            outcomes.fills[at, p] = 1
    return truth, outcomes, rows
