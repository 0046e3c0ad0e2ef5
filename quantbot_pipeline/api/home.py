"""The home of the Python API: taking inputs in, making runs, and the reports that are no matter of models.

Belongs here: a method for each question. Does not: predictions, tuning and anomalies (`models.py`), one run (`runs.py`).
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from quantbot_pipeline.api.models import ModelFrames
from quantbot_pipeline.api.reading import told
from quantbot_pipeline.api.runs import CommittedRun
from quantbot_pipeline.errors import InputError
from quantbot_pipeline.months import parse_day
from quantbot_pipeline.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from quantbot_pipeline.catalog.sync import SyncReport
    from quantbot_pipeline.ingest.frames import Source
    from quantbot_pipeline.ingest.report import IngestReport
    from quantbot_pipeline.reports.tearsheet.frames import Sheet


class Home(ModelFrames):
    """A home directory: its stores, runs and catalog, and the reports over them.

    `Home("~/lab")`; without a path QUANTBOT_HOME or the current directory. `settings` are those of docs/operations.md, e.g.
    `Home("~/lab", memory_limit="8GB")`. Raises InputError for a path that is a file.
    """

    def __init__(self, path: str | Path | None = None, **settings: Any) -> None:
        given = settings if path is None else {"home": path, **settings}
        super().__init__(Settings.model_validate(given))
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: not a directory; choose another home")

    # --- inputs ---

    def ingest_calls(
        self,
        source: "Source",
        *,
        caller: str | None = None,
        fmt: str = "auto",
        caller_from: str | None = None,
        first_mention: float | None = None,
        timezone: str | None = None,
        mapping: Mapping[str, str] | None = None,
    ) -> "IngestReport":
        """Merge calls from a frame, a file, a folder or several into the store; return the counts of the ingest.

        A frame is an input like a file: the same columns, validation and report. `caller` names the caller of sources without
        `caller_name`. Chats: `caller_from` is `chat` or `sender`, `first_mention` the hours in which a caller's further calls of
        a token are none, `timezone` the zone of local times. `mapping` is {our name: column of a table}. Raises InputError before anything is written.
        """
        from quantbot_pipeline.ingest.calls import ingest_calls
        from quantbot_pipeline.ingest.frames import as_files

        with as_files(source, self.settings.data_dir, "calls") as paths:
            return ingest_calls(
                paths,
                self.calls,
                caller=caller,
                fmt=fmt,
                caller_from=caller_from,
                first_mention=first_mention,
                timezone=timezone,
                mapping=mapping,
            )

    def ingest_candles(
        self,
        source: "Source",
        *,
        interval: str,
        fmt: str = "auto",
        mint: str | None = None,
        mapping: Mapping[str, str] | None = None,
        stamp: Literal["open", "close"] | None = None,
        timezone: str | None = None,
    ) -> "IngestReport":
        """Merge candles from a frame, a file, a folder or several into the store; return the counts of the ingest.

        `mint` is the token of sources that name none, `mapping` {our name: column}, `stamp` whose time the times are,
        `timezone` that of times without one. Raises InputError before anything is written.
        """
        from quantbot_pipeline.ingest.candles import ingest_candles
        from quantbot_pipeline.ingest.frames import as_files

        with as_files(source, self.settings.data_dir, "candles") as paths:
            return ingest_candles(
                paths,
                self.candles,
                interval,
                fmt=fmt,
                mint=mint,
                mapping=mapping,
                stamp=stamp,
                timezone=timezone,
            )

    # --- runs ---

    def backtest(
        self, kind: str, months: str | None = None, *, only_changed: bool = False, sync: bool = True, **config: Any
    ) -> list[CommittedRun]:
        """Make runs of a kind (a name of `specs.KINDS`, or `everything`) over months; return the committed ones, by month.

        months: `2024-01`, `2024-01/2024-06`, or days `2024-01-05/2024-02-10`; None: every month with calls. `config` are fields
        of `BacktestConfig`. The runs are materializations of the same Dagster assets that the web UI shows. `sync` registers
        them in the catalog, from which the reports read; where that is out of reach a warning says so. Raises InputError for wrong arguments, QuantbotError when a month failed (the rest is committed).
        """
        from quantbot_pipeline.config import make_config
        from quantbot_pipeline.errors import QuantbotError
        from quantbot_pipeline.market.calls import month_statistics
        from quantbot_pipeline.materialize import materialize, register

        if months is None:
            known = list(month_statistics(self.calls))
            if not known:
                return []
            months = f"{known[0]}/{known[-1]}"
        settings = make_config(config | _bounds(months))
        runs, failure = materialize(kind, settings, self, only_changed=only_changed)
        for said in register(self) if sync else ():
            warnings.warn(said, stacklevel=2)
        if failure is not None:
            raise QuantbotError(failure)
        return [CommittedRun(self.runs.at(run["run_dir"]), journal=self.runs.journal) for run in runs]

    def run(self, run_id: str) -> CommittedRun:
        """Return a committed run by its id. Raises InputError when there is none."""
        return CommittedRun(self.runs.find(run_id), journal=self.runs.journal)

    def sync(self, *, rebuild: bool = False) -> "SyncReport":
        """Register committed runs in the catalog, from which the reports read; return what changed."""
        from quantbot_pipeline.catalog.sync import sync

        return sync(self.catalog, rebuild=rebuild)

    # --- reports ---

    def leaderboard(self, *, interval: str | None = None) -> "pd.DataFrame":
        """Return a row per caller, the newest verdicts first, as `quantbot leaderboard` prints them."""
        from quantbot_pipeline.catalog.last_sync import unregistered_remarks
        from quantbot_pipeline.frames import frame_of_rows
        from quantbot_pipeline.reports.leaderboard import COLUMNS, leaderboard, leaderboard_remarks

        rows = leaderboard(self.catalog, interval)
        runs = self._newest("paths", interval=interval) + self._newest("evidence", interval=interval)[-1:]
        said = leaderboard_remarks(self.catalog, rows, interval) + unregistered_remarks(self.catalog)
        return frame_of_rows(rows, COLUMNS, **told(runs), remarks=said)

    def paths(
        self, *, caller: str | None = None, month: str | None = None, interval: str | None = None
    ) -> "pd.DataFrame":
        """Return what the price did after each call: the columns of the artifact `paths`, and `month`."""
        return self._rows("paths", caller, interval=interval, month=month)

    def trades(
        self, *, policy_id: str | None = None, caller: str | None = None, month: str | None = None
    ) -> "pd.DataFrame":
        """Return the trades of replayed policies: the columns of the artifact `trades`, and `month`.

        Of several runs that replayed a policy in a month the newest counts, as in the dashboard.
        """
        from quantbot_pipeline.frames import frame_of
        from quantbot_pipeline.reports.trades import replayed_trades

        table, runs = replayed_trades(self.catalog, policy_id=policy_id, caller=caller, month=month)
        return frame_of(table, **told(runs))

    def frontier(
        self,
        *,
        caller: str | None = None,
        month: str | None = None,
        limit: int = 20,
        strategy: str = "grid-search",
        interval: str | None = None,
    ) -> "pd.DataFrame":
        """Return the best policies of each caller and month, in sample, as `quantbot frontier` prints them.

        Raises InputError when the caller has no frontier.
        """
        from quantbot_pipeline.frames import frame_of_rows
        from quantbot_pipeline.reports.searches import FRONTIER_COLUMNS, frontier

        rows = frontier(self.catalog, caller=caller, month=month, interval=interval, strategy_id=strategy, limit=limit)
        attrs = self._attrs("frontier", rows, interval=interval, month=month, strategy_id=strategy)
        return frame_of_rows(rows, FRONTIER_COLUMNS, **attrs)

    def walk_forward(self, *, interval: str | None = None) -> "pd.DataFrame":
        """Return per caller and scheme what earlier choices earned later, as `quantbot walk-forward` prints it."""
        from quantbot_pipeline.frames import frame_of_rows
        from quantbot_pipeline.reports.searches import WALK_FORWARD_COLUMNS, walk_forward

        rows = walk_forward(self.catalog, interval)
        return frame_of_rows(rows, WALK_FORWARD_COLUMNS, **self._attrs("walk_forward", rows, interval=interval))

    def policies(self, *, caller: str | None = None) -> "pd.DataFrame":
        """Return what each replayed policy earned over months, as `quantbot policies` prints it."""
        from quantbot_pipeline.frames import frame_of_rows
        from quantbot_pipeline.reports.policies import POLICY_COLUMNS, policies

        rows = policies(self.catalog, caller=caller)
        return frame_of_rows(rows, POLICY_COLUMNS, **self._attrs("summary", ()))

    def catalog_query(self, **filters: Any) -> "pd.DataFrame":
        """Return cataloged runs, newest first, as `quantbot backtest catalog-query` prints them.

        filters: kind (`walk-forward` …), run_type, status, git_branch, from_ms, to_ms, name, tag, limit.
        """
        from quantbot_pipeline.catalog.catalog import query_runs
        from quantbot_pipeline.frames import frame_of

        return frame_of(query_runs(self.catalog, **filters), times=False)

    def sql(self, query: str, *, timeout_s: float = 300.0) -> "pd.DataFrame":
        """Return the rows of one SELECT over the catalog's tables and views; it can reach nothing else.

        Raises InputError for what is not one SELECT, QuantbotError when it needs more memory or time than it may have.
        """
        import pyarrow as pa

        from quantbot_pipeline.catalog.room import answering
        from quantbot_pipeline.frames import frame_of

        with answering(self.catalog, query, timeout_s=timeout_s) as answer:
            table = pa.Table.from_batches(list(answer.batches), answer.schema)
        return frame_of(table, times=False)

    def dashboard(self, out: str | Path | None = None) -> Path:
        """Write the dashboard file and return its path."""
        from quantbot_pipeline.reports.dashboard.page import write_dashboard

        return write_dashboard(self, None if out is None else Path(out))

    def tearsheet(
        self,
        caller: str,
        policy_id: str | None = None,
        *,
        interval: str | None = None,
        scheme: Literal["anchored", "rolling"] = "anchored",
    ) -> "Sheet":
        """Return a caller's tear sheet: its walk-forward choices, or one replayed policy; `__all__` for all callers pooled.

        It has frames (`figures`, `equity`, `months`, `trades`, `calls`), `verdict`, `html` and `write(path)`. Raises
        InputError when there is nothing of this caller or policy.
        """
        from quantbot_pipeline.reports.tearsheet.frames import Sheet
        from quantbot_pipeline.reports.tearsheet.gather import gather
        from quantbot_pipeline.reports.tearsheet.sheet import sheet_of

        found = gather(self.catalog, caller, policy_id, interval, scheme)
        return Sheet(self, sheet_of(found), {**told(found.runs), "remarks": found.remarks})


def _bounds(months: str) -> dict[str, int]:
    """Return a range of months or days as the bounds of a configuration."""
    first, _, last = months.partition("/")
    bounds = {"from_ms": parse_day(first, end=False), "to_ms": parse_day(last or first, end=True)}
    if bounds["from_ms"] >= bounds["to_ms"]:
        raise InputError(f"months {months!r}: the first is after the last; swap them")
    return bounds
