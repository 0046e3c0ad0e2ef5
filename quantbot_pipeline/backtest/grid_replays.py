"""All months up to a judged one, replayed with a grid: what fits is held for the run of the next month.

Belongs here: which replay is made, held or made again. Does not: what is computed from outcomes; that is the recipe's.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from quantbot_pipeline.backtest.inputs import MonthInputs
from quantbot_pipeline.backtest.remembered import forget_others
from quantbot_pipeline.backtest.replaying import replay_month
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.market.candle_files import store_signature
from quantbot_pipeline.replay.policies import Policy

if TYPE_CHECKING:
    from quantbot_pipeline.replay import results

HELD = "grid"


class MonthReplay(NamedTuple):
    """A month's calls under some policies."""

    truth: "results.Truth"
    outcomes: "results.Outcomes"

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        first, distinct, which, exits = self.outcomes
        return sum(array.nbytes for array in (*self.truth, first, distinct, which, *exits))


class GridReplays:
    """Months (ascending) under the policies of a grid, part after part; the last part has one policy more.

    Half of what the memory limit leaves holds whole months, oldest first, as long as they fit. The other half is for the
    part of the grid that is at work. A month that is not held is replayed again for each part.
    """

    def __init__(self, run: Run, policies: Sequence[Policy], also: Policy, config_hash: str, reserved: int) -> None:
        from quantbot_pipeline.replay.results import MAX_POLICIES

        self.months = [*run.earlier, run.inputs]
        self._run, self._policies, self._also = run, policies, also
        # A token without candles in its months may have some in others: whether a call has no entry depends on all files.
        store = store_signature(run.home.candles.folder)
        self._keys = [(HELD, m.month, m.fingerprint, config_hash, store) for m in self.months]
        forget_others(run.cache, HELD, self._keys)
        self._room = max(0, run.home.settings.memory_bytes - reserved) // 2
        if len(policies) + 1 > MAX_POLICIES:
            self._room = 0
        calls = sum(m.calls.num_rows for m in self.months)
        self.parts = run.parts(len(policies), calls, also=1, reserved=reserved + self._room)
        self._hold()
        self._at_work: tuple[slice, dict[int, MonthReplay]] | None = None

    def months_of(self, part: slice) -> list[MonthReplay]:
        """Return every month under one part of the grid; what was replayed for the part last asked for is at hand."""
        if self._at_work is None or self._at_work[0] != part:
            self._at_work = None
            self._at_work = part, dict(self._replayed(part))
        last = part.stop + (part == self.parts[-1])
        made = []
        for i, key in enumerate(self._keys):
            held: MonthReplay | None = self._run.cache.get(key)
            whole = held and held._replace(outcomes=held.outcomes.of_policies(slice(part.start, last)))
            made.append(whole or self._at_work[1][i])
        return made

    def joined(self, part: slice) -> "tuple[results.Truth, results.Outcomes]":
        """Return all months under one part of the grid as one replay."""
        from quantbot_pipeline.replay.results import concatenate

        months = self.months_of(part)
        return concatenate([m.truth for m in months], [m.outcomes for m in months])

    def _hold(self) -> None:
        from quantbot_pipeline.replay.results import outcome_bytes

        cache, used = self._run.cache, 0
        for inputs, key in zip(self.months, self._keys, strict=True):
            most = outcome_bytes(inputs.calls.num_rows, len(self._policies) + 1)
            if used + (cache[key].nbytes if key in cache else most) > self._room:
                cache.pop(key, None)
                continue
            if key not in cache or inputs is self._run.inputs:  # the judged month says which of its calls are left out
                cache[key] = self._replay(inputs, [*self._policies, self._also])
            used += cache[key].nbytes

    def _replayed(self, part: slice) -> Iterator[tuple[int, MonthReplay]]:
        policies = [*self._policies[part], *([self._also] if part == self.parts[-1] else [])]
        for i, (inputs, key) in enumerate(zip(self.months, self._keys, strict=True)):
            if key not in self._run.cache:
                yield i, self._replay(inputs, policies)

    def _replay(self, inputs: MonthInputs, policies: Sequence[Policy]) -> MonthReplay:
        run = self._run
        own = inputs is run.inputs
        made = run.replay(policies) if own else replay_month(run.home, inputs, run.config, policies, run.record)
        return MonthReplay(made.truth, made.outcomes)
