"""Hand-made outcomes: what a replay would have left behind, for tests of what is computed from it.

One `Exit` per (call, policy) becomes the engine's arrays, with excluded calls between the included ones, so that an index
into the wrong kind of row shows.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quantbot_pipeline import vocabulary
from quantbot_pipeline.replay import results
from quantbot_pipeline_tests.support.reference import Exit


def as_arrays(calls: Sequence[Sequence[Exit]]) -> tuple[results.Truth, results.Outcomes, npt.NDArray[np.int64]]:
    """(truth, outcomes, rows of the calls) of calls x policies; every third row is an excluded call full of nonsense."""
    rows = np.array([i + i // 2 for i in range(len(calls))], dtype=np.int64)
    total = int(rows[-1]) + 1 if len(rows) else 0
    truth, outcomes = results.empty_truth(total), results.empty_outcomes(total, len(calls[0]) if calls else 0)
    for column in outcomes[:3]:
        column[:] = 77
    left: list[Exit] = []
    for at, exits in zip(rows, calls, strict=True):
        truth.status[at] = vocabulary.INCLUDED
        truth.p0[at], truth.entry_ts[at] = exits[0].p0, exits[0].entry_ts
        truth.peak[at] = exits[0].peak * exits[0].p0
        # Policies that leave alike share an exit, as after a replay; the last policy's comes first.
        distinct = list(dict.fromkeys(reversed(exits)))
        outcomes.first[at], outcomes.distinct[at] = len(left), len(distinct)
        outcomes.which[at] = [distinct.index(one) for one in exits]
        left += distinct
    return truth, outcomes._replace(exits=_exits(left)), rows


def _exits(left: Sequence[Exit]) -> results.Exits:
    return results.Exits(
        ts=np.array([e.exit_ts for e in left], dtype=np.int64),
        px=np.array([e.exit_px for e in left], dtype=np.float64),
        reason=np.array([vocabulary.EXIT_REASONS.index(e.reason) for e in left], dtype=np.uint8),
        fills=np.ones(len(left), dtype=np.uint16),
        mae_bps=np.array([e.mae_bps for e in left], dtype=np.float64),
    )
