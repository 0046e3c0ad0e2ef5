"""The inputs of a month: its calls, the plan of what must be decoded, and the hash of both."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quantbot_pipeline.config import BacktestConfig
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.home import Home
from quantbot_pipeline.kept import NEVER, Kept
from quantbot_pipeline.market.calls import MonthCalls, files_of, read_calls
from quantbot_pipeline.market.candle_files import last_candle_ms, month_file, rejected_file
from quantbot_pipeline.market.candle_reader import NOTHING, CandlePlan, Piece, plan_slices
from quantbot_pipeline.months import month_of, month_range, month_start_ms, months_before, next_month
from quantbot_pipeline.runs.content import content_sha256
from quantbot_pipeline.vocabulary import INTERVALS_MS

Floats = npt.NDArray[np.float64]


class MonthInputs(NamedTuple):
    """A month's inputs: its calls, how many were rejected at ingest, what must be decoded, and the hash of it all.

    The fingerprint leaves the liquidity out: of all kinds of run the evidence alone depends on it; see `with_liquidity`.
    """

    month: str
    calls: pa.Table
    by_mint: "CallsByMint"
    rejected: dict[str, int]
    liquidity: Floats
    plan: CandlePlan
    fingerprint: str
    broken: str | None

    @property
    def with_liquidity(self) -> str:
        """The fingerprint, with the liquidity of the calls where any is known."""
        if np.isnan(self.liquidity).all():
            return self.fingerprint
        return joint_hash(self.fingerprint, hashlib.sha256(self.liquidity.astype("<f8").tobytes()).hexdigest())


def bounds_of(month: str, config: BacktestConfig) -> tuple[int, int]:
    start, end = month_start_ms(month), month_start_ms(next_month(month))
    return max(start, config.from_ms or start), min(end, config.to_ms or end)


def reach_ms(config: BacktestConfig) -> int:
    """How long after its alert a call can need candles."""
    return config.max_entry_delay_ms + INTERVALS_MS[config.interval] + config.horizon_ms


def seen_until(home: Home, month: str, config: BacktestConfig) -> int | None:
    """Return up to when a month's run can know how calls ended, UTC ms; None without candles.

    That is the end of the newest candle, of whatever token: a token that stopped trading has no more candles, and the window of
    its call ends all the same. Candles behind the last window of the month change nothing.
    """
    end = month_start_ms(next_month(month)) + reach_ms(config)
    months = month_range(months_before(month, 1), month_of(end))
    last = [last_candle_ms(home.candles.folder, config.interval, one) for one in months]
    newest = max((ms for ms in last if ms is not None), default=None)
    return None if newest is None else min(newest + INTERVALS_MS[config.interval], end)


def load_month(home: Home, month: str, config: BacktestConfig, bounds: tuple[int, int]) -> MonthInputs | None:
    """The inputs of a month; None when it has no calls."""
    read = read_calls(home.calls, *bounds)
    return planned(home, month, config, read) if read.calls.num_rows else None


def month_to_come(home: Home, month: str, bounds: tuple[int, int]) -> MonthInputs:
    """The inputs of a month without a call, for what is made before its calls come."""
    calls, rejected, liquidity = read_calls(home.calls, *bounds)
    by_mint = CallsByMint({}, *(np.zeros(0, np.int64) for _ in range(3)))
    return MonthInputs(month, calls, by_mint, rejected, liquidity, NOTHING, joint_hash(content_sha256(calls)), None)


PIECE = 1 << 17  # rows of a table that are made at a time
# Every recipe of a month plans it, and so does each later month that learns from it. What is kept counts calls.
_PLANNED: Kept[MonthInputs] = Kept(200_000, lambda inputs: NEVER if inputs.broken else inputs.calls.num_rows + 100)


def planned(home: Home, month: str, config: BacktestConfig, read: MonthCalls) -> MonthInputs:
    """The inputs of a month whose calls were read, ordered by time; planned anew if a file of the stores changed since."""
    alert = read.calls["alert_ts_ms"]
    first, last = alert[0].as_py(), alert[-1].as_py()
    months = month_range(month, month_of(last + reach_ms(config)))
    files = [f(home.candles.folder, config.interval, m) for m in months for f in (month_file, rejected_file)]
    key = (home.calls, home.candles, month, first, last, read.calls.num_rows, config.interval, reach_ms(config))
    made = _PLANNED.get(key, [*files_of(home.calls), *files], lambda: _planned(home, month, config, read))
    # The store may have been replaced after these calls were read, and before the plan was asked for.
    if not made.calls.equals(read.calls) or not np.array_equal(made.liquidity, read.liquidity, equal_nan=True):
        return _planned(home, month, config, read)
    return made._replace(rejected=read.rejected)


def _planned(home: Home, month: str, config: BacktestConfig, read: MonthCalls) -> MonthInputs:
    calls, rejected, liquidity = read
    by_mint = calls_by_mint(calls)
    try:
        plan, broken = _plan_candles(home, month, calls, by_mint, config), None
    except InputError as e:  # this month's run will be committed as failed; the other months go on
        plan, broken = NOTHING, str(e)
    return MonthInputs(
        month,
        calls,
        by_mint,
        rejected,
        liquidity,
        plan,
        joint_hash(content_sha256(calls), *plan.fingerprint),
        broken,
    )


def joint_hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def earlier_months(home: Home, month: str, config: BacktestConfig) -> list[MonthInputs]:
    """The inputs of all months before `month` that have calls, ascending; the calls are read at once."""
    calls, _, liquidity = read_calls(home.calls, 0, month_start_ms(month))
    alert = calls["alert_ts_ms"].to_numpy()
    earlier, start = [], 0
    while start < len(alert):
        name = month_of(int(alert[start]))
        end = int(np.searchsorted(alert, month_start_ms(next_month(name))))
        read = MonthCalls(calls.slice(start, end - start), {}, liquidity[start:end])
        earlier.append(planned(home, name, config, read))
        start = end
    return earlier


def known_in(home: Home, inputs: MonthInputs, config: BacktestConfig, month: str) -> MonthInputs:
    """Return the inputs of a month as they were known at the end of `month`: without the candles of later months."""
    if inputs.broken:
        return inputs
    plan = _plan_candles(home, inputs.month, inputs.calls, inputs.by_mint, config, month)
    return inputs._replace(plan=plan, fingerprint=joint_hash(content_sha256(inputs.calls), *plan.fingerprint))


def _plan_candles(
    home: Home, month: str, calls: pa.Table, by_mint: "CallsByMint", config: BacktestConfig, last_month: str = "9999-12"
) -> CandlePlan:
    alert = calls["alert_ts_ms"].to_numpy()
    last = np.maximum.reduceat(alert[by_mint.rows], by_mint.ends - by_mint.counts)
    until = dict(zip(by_mint.code, (last + reach_ms(config)).tolist(), strict=True))
    months = list(month_range(month, min(last_month, month_of(max(until.values())))))
    return plan_slices(home.candles.folder, config.interval, months, until, month_start_ms(next_month(month)))


class CallsByMint(NamedTuple):
    """Rows of the calls, token after token: `rows[ends[i] - counts[i] : ends[i]]` are those of the mint with `code[mint] == i`."""

    code: dict[str, int]
    rows: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def calls_by_mint(calls: pa.Table) -> CallsByMint:
    mints = calls["mint"].combine_chunks().dictionary_encode()
    codes = mints.indices.to_numpy()
    counts = np.bincount(codes, minlength=len(mints.dictionary))
    code = {mint: i for i, mint in enumerate(mints.dictionary.to_pylist())}
    return CallsByMint(code, np.argsort(codes, kind="stable"), np.cumsum(counts), counts)


def match_calls(
    piece: Piece, calls: CallsByMint
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(lo, hi, rows) of the calls whose tokens are in the piece."""
    counts = calls.counts[piece.tokens]
    token = np.repeat(np.arange(len(counts)), counts)
    # Position in `rows`: the first of its token, and how far into the token's calls.
    within = np.arange(len(token)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = calls.rows[np.repeat(calls.ends[piece.tokens] - counts, counts) + within]
    return piece.lo[token], piece.hi[token], rows


def pieces(calls: int, size: int) -> Iterator[slice]:
    return (slice(first, first + size) for first in range(0, calls, size))
