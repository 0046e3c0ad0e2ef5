"""What models, tuning and anomalies say, as frames: a prediction, a tuned policy and a caller's regime with the verdict beside it.

Belongs here: a method for each question. Does not: which verdict goes with a row; the reports know that.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from quantbot_pipeline.api.reading import Reading
from quantbot_pipeline.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from quantbot_pipeline.ingest.frames import Source


class ModelFrames(Reading):
    """A home that can be asked what is known at an alert, what is predicted of it, and what is odd."""

    def features(self, *, month: str | None = None, interval: str | None = None) -> "pd.DataFrame":
        """Return what was known of each call at its alert: the columns of the artifact `features`, and `month`."""
        return self._rows("features", None, interval=interval, month=month)

    def models(self, *, target: str | None = None, interval: str | None = None) -> "pd.DataFrame":
        """Return a row per target: verdict, money verdict and what they rest on, to date, as `quantbot models` prints them.

        Raises InputError for a target of which there is no report.
        """
        from quantbot_pipeline.frames import frame_of_rows
        from quantbot_pipeline.reports.predictions import MODEL_COLUMNS, model_report

        rows = model_report(self.catalog, target=target, interval=interval)
        return frame_of_rows(rows, MODEL_COLUMNS, **self._attrs("model_report", (), interval=interval))

    def model_report(
        self, *, target: str | None = None, month: str | None = None, interval: str | None = None
    ) -> "pd.DataFrame":
        """Return how every model did: a row per target, model and scope of each month, with the verdicts of the month's blend."""
        from quantbot_pipeline.frames import frame_of
        from quantbot_pipeline.reports.predictions import measures

        rows = measures(self.catalog, target=target, month=month, interval=interval)
        return frame_of(rows, **self._attrs("model_report", (), interval=interval, month=month))

    def model_documents(self, *, target: str | None = None, month: str | None = None) -> "pd.DataFrame":
        """Return the models themselves: the columns of the artifact `models`, `month`, and the verdicts to date."""
        from quantbot_pipeline.frames import frame_of
        from quantbot_pipeline.reports.predictions import documents

        return frame_of(documents(self.catalog, target=target, month=month), **self._attrs("models", (), month=month))

    def predictions(self, **which: str | None) -> "pd.DataFrame":
        """Return what was predicted of calls, with `month` and, beside every number, the verdicts of its target to date.

        which: `target`, `caller`, `month`, `interval`. Read `frame["take"]`: `frame.take` is a method of pandas.
        """
        from quantbot_pipeline.frames import frame_of
        from quantbot_pipeline.reports.predictions import predictions

        behind = {name: which.get(name) for name in ("interval", "month")}
        return frame_of(predictions(self.catalog, **which), **self._attrs("predictions", (), **behind))

    def explanations(
        self,
        artifact: Literal["importance", "dependence", "calibration"],
        *,
        target: str | None = None,
        interval: str | None = None,
    ) -> "pd.DataFrame":
        """Return what the newest models go by (`importance`, `dependence`) or how often they were right, with the verdicts."""
        from quantbot_pipeline.frames import frame_of
        from quantbot_pipeline.reports.predictions import explanations

        rows = explanations(self.catalog, artifact, target=target, interval=interval)
        return frame_of(rows, **self._attrs(artifact, (), interval=interval))

    def score(
        self,
        source: "Source | None" = None,
        *,
        since: str | None = None,
        targets: Sequence[str] = (),
        interval: str | None = None,
    ) -> "pd.DataFrame":
        """Return what the committed models say of calls, with the verdicts, as `quantbot score` prints it; nothing is stored.

        source: a frame, a file, a folder or several, as for `ingest_calls`; or `since`, a UTC time, for calls of the store.
        `frame.attrs["remarks"]` says what was rejected. Raises InputError without models, and for both or neither of the two.
        """
        from quantbot_pipeline.backtest.scoring import newest_first, remark_of, score
        from quantbot_pipeline.frames import frame_of
        from quantbot_pipeline.ingest.frames import as_files
        from quantbot_pipeline.ingest.unstored import ONE_OF, calls_since, unstored_calls
        from quantbot_pipeline.reports.predictions import verdicts_of

        said: list[str] = []
        if source is not None and since is None:
            with as_files(source, self.settings.data_dir, "calls") as paths:
                calls, said = unstored_calls(paths, self.calls)
        elif source is None and since is not None:
            calls = calls_since(self.calls, since)
        else:
            raise InputError(ONE_OF)
        found = score(self, calls, verdicts_of(self.catalog, interval), targets=targets, interval=interval)
        return frame_of(newest_first(found), remarks=[*said, *remark_of(found)])

    def scores(self, month: str | None = None) -> "pd.DataFrame":
        """Return the scores that were kept as calls arrived, of a month or all, with the verdicts as they were then."""
        from quantbot_pipeline.backtest.scores import kept_scores
        from quantbot_pipeline.frames import frame_of

        return frame_of(kept_scores(self, month))

    def tuned(
        self, *, caller: str | None = None, month: str | None = None, interval: str | None = None
    ) -> "pd.DataFrame":
        """Return what levels tuned before each month promised and earned, with the verdicts of the scheme as of that month.

        The columns are those of the artifact `tuned`, and `month`.
        """
        return self._rows("tuned", caller, interval=interval, month=month)

    def anomalies(self, *, interval: str | None = None, **which: str | None) -> "pd.DataFrame":
        """Return what was odd in each month, the worst first, as `quantbot anomalies` prints it.

        which: `severity` (that one and worse ones), `kind`, `subject` (a mint or a caller). Beside what tells of a caller stands
        the verdict on that caller. Raises InputError for words that do not exist.
        """
        from quantbot_pipeline.frames import frame_of_rows
        from quantbot_pipeline.reports.anomalies import COLUMNS, anomalies

        rows = anomalies(self.catalog, interval=interval, **which)
        return frame_of_rows(rows, COLUMNS, **self._attrs("anomalies", (), interval=interval))

    def ingests(self) -> "pd.DataFrame":
        """Return which ingests of calls were noted: a row for each ingest, source and caller."""
        from quantbot_pipeline.frames import frame_of
        from quantbot_pipeline.market.sightings import read_noted

        return frame_of(read_noted(self.calls, "ingests"))

    def call_sightings(self) -> "pd.DataFrame":
        """Return the first and the last ingest that saw each call, by source."""
        from quantbot_pipeline.frames import frame_of
        from quantbot_pipeline.market.sightings import read_noted

        return frame_of(read_noted(self.calls, "call_sightings"))
