"""What the anchored walk-forward chose before each month: read from its runs, remembered, or made again.

Belongs here: where a month's choices come from. Does not: how a choice is made; that is `search.walk_forward`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from quantbot_pipeline.backtest.earlier_runs import EarlierRuns
from quantbot_pipeline.backtest.inputs import MonthInputs
from quantbot_pipeline.backtest.run import Run
from quantbot_pipeline.months import month_start_ms
from quantbot_pipeline.specs import KINDS

if TYPE_CHECKING:
    from quantbot_pipeline.replay import results
    from quantbot_pipeline.search.frontier import Candidates, Group
    from quantbot_pipeline.search.objective import Constraints, Objective
    from quantbot_pipeline.search.walk_forward import Evaluated

SCHEME = "anchored"
NO_TRADE = -1


class Chosen(NamedTuple):
    """A caller's choice for a month: the policy's column (`NO_TRADE`: none), and on how many calls it was made."""

    column: int
    train_calls: int


ByCaller = dict[str, Chosen]


class Choices:
    """The choices of every month up to the judged one, made part after part of the grid where nobody made them before."""

    def __init__(
        self, run: Run, months: Sequence[MonthInputs], search: "Candidates", goals: "tuple[Constraints, Objective]"
    ) -> None:
        self._run, self._months, self._search, self._goals = run, months, search, goals
        config = run.config.model_copy(update={"pool_calls": 0})  # the evidence does not depend on leaning
        self._runs = EarlierRuns(run, KINDS["walk-forward"], config, months)
        self._keys = [self._runs.key("choices", i) for i in range(len(months))]
        self.known: dict[int, ByCaller] = {}
        for i, key in enumerate(self._keys):
            found = run.cache.get(key) or self._read(i)
            if found is not None:
                self.known[i] = found
        self._groups: dict[int, list[Group]] = {}
        self._stats: dict[int, list[npt.NDArray[np.float64]]] = {}

    @property
    def complete(self) -> bool:
        """Whether no month is left to be made."""
        return len(self.known) == len(self._months)

    def add(self, part: slice, data: "Evaluated", outcomes: "results.Outcomes") -> None:
        """Take in the outcomes of one part of the grid on all calls."""
        from quantbot_pipeline.search.frontier import statistics
        from quantbot_pipeline.search.walk_forward import train_groups

        for i in (i for i in range(len(self._months)) if i not in self.known):
            start = month_start_ms(self._months[i].month)
            first = month_start_ms(self._months[0].month)
            if i not in self._groups:
                since = {"anchored": first, "rolling": start}
                self._groups[i] = train_groups(data, start, since, self._run.config.horizon_ms)[SCHEME]
            found = statistics(self._groups[i], data.truth, outcomes, self._run.cost, self._goals[1])
            self._stats.setdefault(i, []).append(found[:, : part.stop - part.start])

    def finish(self, truth: "results.Truth") -> Mapping[int, ByCaller]:
        """Return the choices of every month by its position, and remember them."""
        from quantbot_pipeline.search.frontier import rank
        from quantbot_pipeline.search.walk_forward import choice_of

        for i, groups in self._groups.items():
            stats = np.concatenate(self._stats[i], axis=1)
            rankings = rank(groups, truth, stats, self._search, *self._goals)
            made = {}
            for name in set(self._months[i].calls["caller_name"].to_pylist()):
                choice = choice_of(name, groups, rankings)
                column = choice.column()
                made[name] = Chosen(NO_TRADE if column is None else column, choice.train_calls)
            self.known[i] = made
        for i, key in enumerate(self._keys):
            self._run.cache[key] = self.known[i]
        return self.known

    def _read(self, i: int) -> ByCaller | None:
        """Return the choices that a walk-forward run of the same inputs, code and configuration made, if there is one."""
        place = {name: column for column, name in enumerate(self._search.ids)}
        rows = self._runs.rows(i, "walk_forward")
        if rows is None:
            return None
        return {
            row["caller_name"]: Chosen(place.get(row["policy_id"], NO_TRADE), row["train_calls"])
            for row in rows
            if row["scheme"] == SCHEME
        }
