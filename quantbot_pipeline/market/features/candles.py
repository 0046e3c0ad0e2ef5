"""What candles said when calls were made: of the token itself, and of all other tokens in the last full hour.

Belongs here: which candles meet which calls, row group by row group, and the day before the month. Does not: the arithmetic; that
is in `kernels`. A call sees the candles that had closed by its alert, at most a day long: those of its month, and of its first
day those of the month before.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.kept import Kept
from quantbot_pipeline.market.candle_reader import Group, StoreFile, content_of, month_groups
from quantbot_pipeline.market.features.kernels import DAY_MS, HOUR_MS, market_medians, market_values, price_values
from quantbot_pipeline.market.features.names import FROM_CANDLES, PRICES
from quantbot_pipeline.months import month_of, month_start_ms, months_before, next_month
from quantbot_pipeline.vocabulary import INTERVALS_MS

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
KEPT_ROOM = 64_000_000  # bytes of last days


class _Tokens(NamedTuple):
    """Candles of tokens as in `Group`, and the position of each token by its mint."""

    group: Group
    place: dict[str, int]


_EMPTY = Group([], np.zeros(1, np.int64), np.empty(0, np.int64), *(np.empty(0) for _ in range(5)))
_LAST_DAYS: Kept[_Tokens] = Kept(
    KEPT_ROOM, lambda day: sum(a.nbytes for a in day.group.arrays()) + 200 * len(day.place)
)


def candle_features(
    store: Path, interval: str, mints: Sequence[str], alert: Integers, *, market: bool = True, threads: int = 1
) -> dict[str, Floats]:
    """Return FROM_CANDLES of calls as of their alerts, whether a store of calls knows them or not: (C,) float64, NaN is null.

    store: the folder of candles. mints (C,): the tokens that the calls name; alert (C,): UTC ms. Without `market` the market's
    columns are NaN, and only row groups with one of the tokens are decoded. Raises InputError for a file that cannot be read.
    """
    alert = np.asarray(alert, dtype=np.int64)
    made = {name: np.full(len(alert), np.nan) for name in FROM_CANDLES}
    months = np.array([month_of(int(t)) for t in alert], dtype=object)
    for month in np.unique(months.astype(str)):
        rows = np.flatnonzero(months == month)
        seen = CandleFeatures(
            store, interval, str(month), [mints[i] for i in rows.tolist()], alert[rows], market=market
        )
        seen.prepare(threads)
        if found := month_groups(store, interval, str(month)):
            _each(seen.wanted(*found), seen.take, threads)
        for name, values in seen.columns().items():
            made[name][rows] = values
    return made


class CandleFeatures:
    """FROM_CANDLES of one month's calls, made while the row groups of the month are decoded: `take` is shown each of them.

    Order: `prepare`, `take` (by threads, in whatever order), `columns`.
    """

    def __init__(
        self, store: Path, interval: str, month: str, mints: Sequence[str], alert: Integers, *, market: bool = True
    ) -> None:
        self._store, self._interval, self._month = store, interval, month
        self._interval_ms, self._start = INTERVALS_MS[interval], month_start_ms(month)
        self._mints, self._alert = mints, alert
        self._rows: dict[str, list[int]] = {}
        for row, mint in enumerate(mints):
            self._rows.setdefault(mint, []).append(row)
        self._early = alert < self._start + DAY_MS  # a call that may see candles of the month before
        self._hours, self._hour_of = np.unique(alert // HOUR_MS * HOUR_MS, return_inverse=True)
        if not market:
            self._hours = self._hours[:0]
        self._market = market
        self._before = _Tokens(_EMPTY, {})
        self._prices = np.full((len(alert), len(PRICES)), np.nan)
        self._prices[:, 0] = 0
        self._pairs: list[tuple[Integers, Sequence[str], Integers, Floats]] = []
        self._seen: list[Sequence[str]] = []
        self._ends: list[Group] = []

    def prepare(self, threads: int) -> None:
        """Read the last day of the month before, where a call can see any of it."""
        if self._early.any():
            self._before = last_day(self._store, self._interval, months_before(self._month, 1), threads)

    def wanted(self, file: StoreFile, groups: Sequence[Callable[[], Group]]) -> list[Callable[[], Group]]:
        """Return those functions of `month_groups` whose row groups are needed."""
        if self._market:
            return list(groups)
        return [
            load for load, held in zip(groups, file.groups, strict=True) if not self._rows.keys().isdisjoint(held.mints)
        ]

    def take(self, group: Group) -> None:
        """Take in a decoded row group of the month."""
        self._seen.append(group.mints)
        self._ends.append(_from(group, month_start_ms(next_month(self._month)) - DAY_MS))
        self._measure(group, ~self._early, self._hours >= self._start + DAY_MS)
        if self._early.any():
            self._measure(self._first_days(group), self._early, self._hours < self._start + DAY_MS)

    def keep_last_day(self, file: StoreFile) -> None:
        """Keep the month's last day for the calls of the next one, if all row groups of `file` were taken in."""
        if file.is_described and len(self._seen) == len(file.groups):
            _LAST_DAYS.get((file.path, content_of(file)), [file.path], lambda: _by_token(self._ends))

    def columns(self) -> dict[str, Floats]:
        """Return FROM_CANDLES (C,) float64, NaN is null; all row groups have been taken in."""
        seen = set(chain.from_iterable(self._seen))
        if gone := [mint for mint in self._before.place if mint not in seen]:  # without a candle in this month
            self._measure(_joined(gone, _EMPTY, [], self._before), self._early, self._hours < self._start + DAY_MS)
        made = dict(zip(PRICES, self._prices.T, strict=True))
        market = self._market_of_calls()
        names = ("market_tokens", "market_ret_1h", "market_ret_24h", "market_rv_24h")
        made |= dict(zip(names, market.T, strict=True))
        made["excess_ret_24h"] = made["ret_24h"] - made["market_ret_24h"]
        return {name: np.ascontiguousarray(made[name]) for name in FROM_CANDLES}

    def _first_days(self, group: Group) -> Group:
        """The candles of the group's tokens from the day before the month to the end of its first day."""
        first = [
            lo + int(np.searchsorted(group.ts[lo:hi], self._start + DAY_MS))
            for lo, hi in zip(group.offsets[:-1].tolist(), group.offsets[1:].tolist(), strict=True)
        ]
        return _joined(group.mints, group, first, self._before)

    def _measure(self, group: Group, calls: npt.NDArray[np.bool_], hours: npt.NDArray[np.bool_]) -> None:
        """Write the prices of those calls whose tokens are in the group, and note what the market of those hours says of them."""
        rows, lo, hi = [], [], []
        for place, mint in enumerate(group.mints):
            for row in self._rows.get(mint, ()):
                if calls[row]:
                    rows.append(row)
                    lo.append(group.offsets[place])
                    hi.append(group.offsets[place + 1])
        if rows:
            out = np.empty((len(rows), len(PRICES)))
            spans = np.array([lo, hi], dtype=np.int64)
            price_values(*map(_read_only, group.arrays()), *spans, self._alert[rows], self._interval_ms, out)
            self._prices[rows] = out
        if hours.any():
            arrays = map(_read_only, (group.ts, group.open, group.close))
            at, whose, values = market_values(*arrays, group.offsets, self._hours[hours], self._interval_ms)
            self._pairs.append((np.flatnonzero(hours)[at], group.mints, whose, values))

    def _market_of_calls(self) -> Floats:
        """Return market_tokens and the three medians of every call (C, 4), NaN is null."""
        out = np.full((len(self._alert), 4), np.nan)
        if not self._market:
            return out
        code: dict[str, int] = {}
        hour, whose = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        values = [np.empty((0, 3))]
        for hours, mints, tokens, found in self._pairs:
            codes = np.array([code.setdefault(mint, len(code)) for mint in mints], dtype=np.int64)
            hour.append(hours)
            whose.append(codes[tokens] if len(codes) else tokens)
            values.append(found)
        at = np.concatenate(hour)
        order = np.argsort(at, kind="stable")
        starts = np.searchsorted(at[order], np.arange(len(self._hours) + 1))
        own = np.array([code.get(mint, -1) for mint in self._mints], dtype=np.int64)
        market_medians(
            self._hour_of.astype(np.int64),
            own,
            starts,
            np.concatenate(whose)[order],
            np.concatenate(values)[order],
            out,
        )
        return out


def last_day(store: Path, interval: str, month: str, threads: int) -> _Tokens:
    """Return the candles of a month's last day by token; kept for as long as the file stays the same."""
    found = month_groups(store, interval, month)
    if found is None:
        return _Tokens(_EMPTY, {})
    file, groups = found
    since = month_start_ms(next_month(month)) - DAY_MS

    def make() -> _Tokens:
        ends: list[Group] = []
        _each(groups, lambda group: ends.append(_from(group, since)), threads)
        return _by_token(ends)

    if not file.is_described:
        return make()
    return _LAST_DAYS.get((file.path, content_of(file)), [file.path], make)


def _each(loads: Iterable[Callable[[], Group]], take: Callable[[Group], None], threads: int) -> None:
    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(lambda load: take(load()), loads))


def _by_token(groups: Iterable[Group]) -> _Tokens:
    """Join row groups of different tokens."""
    parts = [group for group in groups if len(group.mints)]
    if not parts:
        return _Tokens(_EMPTY, {})
    mints = list(chain.from_iterable(group.mints for group in parts))
    counts = np.concatenate([np.diff(group.offsets) for group in parts])
    arrays = [np.concatenate(columns) for columns in zip(*(group.arrays() for group in parts), strict=True)]
    whole = Group(mints, np.append(0, np.cumsum(counts)).astype(np.int64), *arrays)
    return _Tokens(whole, {mint: place for place, mint in enumerate(mints)})


def _from(group: Group, since: int) -> Group:
    """Return a copy of the candles that open at `since` or later, of the tokens that have any."""
    keep = group.ts >= since
    before = np.append(0, np.cumsum(keep))
    offsets = before[group.offsets]
    some = np.flatnonzero(np.diff(offsets))
    mints = [group.mints[i] for i in some.tolist()]
    return Group(mints, np.append(offsets[some], offsets[-1]).astype(np.int64), *(a[keep] for a in group.arrays()))


def _joined(mints: Sequence[str], group: Group, ends: Sequence[int], before: _Tokens) -> Group:
    """Return tokens with their rows of the day before, followed by their rows of the group up to `ends` (none given: no such rows)."""
    spans: list[tuple[Group, int, int]] = []
    counts = [0]
    for place, mint in enumerate(mints):
        n = 0
        earlier = before.place.get(mint)
        if earlier is not None:
            lo, hi = before.group.offsets[earlier : earlier + 2].tolist()
            spans.append((before.group, lo, hi))
            n += hi - lo
        if ends:
            lo = int(group.offsets[place])
            spans.append((group, lo, ends[place]))
            n += ends[place] - lo
        counts.append(n)
    arrays = [
        np.concatenate([empty, *(source[2 + i][lo:hi] for source, lo, hi in spans)])
        for i, empty in enumerate(_EMPTY.arrays())
    ]
    return Group(list(mints), np.cumsum(counts).astype(np.int64), *arrays)


def warm_up() -> None:
    """Compile the kernels, or load them, by measuring nothing."""
    month = CandleFeatures(Path(), "1h", "1970-01", [""], np.zeros(1, np.int64))
    month.take(Group([""], np.zeros(2, np.int64), *_EMPTY.arrays()))
    month.columns()


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Decoded columns are read-only and copies are not: with one kind of array there is one compiled form of a kernel."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view
