"""A home: the stores of calls and candles, the runs and their catalog, all under one directory.

Belongs here: which store lies where, and how much memory and patience it has. Does not: any number. The public Python API is
`api.Home`, which adds what one can ask of a home.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from quantbot_pipeline.settings import Settings, memory_bytes

if TYPE_CHECKING:
    from quantbot_pipeline.catalog.catalog import Catalog
    from quantbot_pipeline.catalog.shared import SharedCatalog
    from quantbot_pipeline.market.call_months import ObjectCalls
    from quantbot_pipeline.market.calls import CallStore
    from quantbot_pipeline.market.candle_files import CandleStore
    from quantbot_pipeline.market.mirror import Mirror
    from quantbot_pipeline.runs.store import RunStore

DUCKDB_LEAST = 128_000_000  # bytes; with less DuckDB could not sort the calls of a large month


class Home:
    """One home directory and its settings; the stores, runs and catalog are imported and made when they are first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def changed(self, **settings: Any) -> Self:
        """Return the same home with some settings changed."""
        other = object.__new__(type(self))
        other.settings = self.settings.model_copy(update=settings)
        return other

    def between(self, first: str | None, last: str | None) -> Self:
        """Return the same home whose reports read the months from the first to the last alone; None: no bound."""
        other = self.changed()
        other.catalog = replace(self.catalog, months=(first, last))
        return other

    @property
    def path(self) -> Path:
        """The directory under which data/ and runs/ lie."""
        return self.settings.home

    @cached_property
    def _mirror(self) -> "Mirror | None":
        """What looks like a folder of inputs, where these are kept in an object store."""
        settings = self.settings
        if (url := settings.inputs_url) is None:
            return None
        from quantbot_pipeline.bucket import Bucket
        from quantbot_pipeline.market.mirror import Mirror

        limit, age_s = memory_bytes(settings.cache_limit), settings.staging_max_age_s
        return Mirror(Bucket(url, settings.store_options), settings.inputs_dir, limit, age_s, settings.lock_timeout_s)

    @cached_property
    def _calls(self) -> "CallStore":
        from quantbot_pipeline.market.calls import CallStore

        memory, patience = f"{max(self.settings.memory_bytes, DUCKDB_LEAST)}B", self.settings.lock_timeout_s
        return CallStore(self.settings.alerts_db, memory, patience, self._calls_elsewhere)

    @cached_property
    def _calls_elsewhere(self) -> "ObjectCalls | None":
        if self._mirror is None or self.settings.calls_db is not None:
            return None
        from quantbot_pipeline.market.call_months import ObjectCalls

        return ObjectCalls(
            self._mirror, self.settings.alerts_db, self.settings.memory_limit, self.settings.lock_timeout_s
        )

    @property
    def calls(self) -> "CallStore":
        """The store of calls, data/alerts.duckdb, or what an object store has of them now."""
        if self._calls_elsewhere is not None:
            self._calls_elsewhere.look()
        return self._calls

    @cached_property
    def _candles(self) -> "CandleStore":
        from quantbot_pipeline.market.candle_files import CandleStore

        return CandleStore(
            self.settings.candles_dir, self.settings.memory_limit, self.settings.lock_timeout_s, self._mirror
        )

    @property
    def candles(self) -> "CandleStore":
        """The store of candles, data/candles/, or what an object store has of them now."""
        if self._mirror is not None:
            self._mirror.look()
        return self._candles

    @cached_property
    def runs(self) -> "RunStore":
        """The committed runs, runs/ or a place in an object store."""
        return self.runs_at(self.settings.runs or f"file://{self.settings.runs_dir}")

    @property
    def replicas(self) -> "list[RunStore]":
        """The places that the runs are copied to."""
        return [self.runs_at(url) for url in self.settings.replicas]

    def runs_at(self, url: str) -> "RunStore":
        """Return the runs at a URL, as settings name places; nothing is read yet."""
        settings = self.settings
        folder, age_s = settings.folder_of(url), settings.staging_max_age_s
        if url.startswith("file://"):
            from quantbot_pipeline.runs.store import LocalRuns

            return LocalRuns(folder, age_s)
        from quantbot_pipeline.bucket import Bucket
        from quantbot_pipeline.runs.objects import ObjectRuns

        options = settings.replica_options.get(url, settings.store_options)
        return ObjectRuns(Bucket(url, options), folder, age_s, memory_bytes(settings.cache_limit))

    @cached_property
    def catalog(self) -> "Catalog":
        """The index over the runs, data/backtest_catalog.duckdb; a copy where it is shared with other machines."""
        from quantbot_pipeline.catalog.catalog import Catalog

        settings = self.settings
        shared = None if settings.catalog is None else self._shared(settings.catalog)
        return Catalog(settings.catalog_db, self.runs, settings.memory_limit, settings.lock_timeout_s, shared=shared)

    def _shared(self, url: str) -> "SharedCatalog":
        if url.startswith("postgresql://"):
            from quantbot_pipeline.catalog.postgres import PostgresCatalog

            return PostgresCatalog(url, self.runs.place)
        from quantbot_pipeline.bucket import Bucket
        from quantbot_pipeline.catalog.object_catalog import ObjectCatalog

        return ObjectCatalog(Bucket(url, self.settings.store_options))
