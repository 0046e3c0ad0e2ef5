"""`inputs/fetched_candles`: the candles that a month's calls still miss, asked of a source of the network.

Belongs here: months, configuration and metadata. Does not: what is asked, and how.
"""

from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from quantbot_pipeline.orchestration.resources import Lab
from quantbot_pipeline.orchestration.stopping import heeding, stop_if_canceled
from quantbot_pipeline.orchestration.waiting import INPUT_WRITER

if TYPE_CHECKING:
    from quantbot_pipeline.home import Home
    from quantbot_pipeline.ingest.connectors.fetch import FetchReport


class FetchConfig(dg.Config):
    """Which source is asked for which candles."""

    source: str = Field("", description="geckoterminal, birdeye, ccxt:EXCHANGE or binance-vision; empty: the setting")
    interval: str = Field("", description="interval of the candles; empty: the setting")
    horizon_hours: float = Field(48.0, gt=0, le=8784, description="length of the window after the entry")


def fetch_assets(months: dg.PartitionsDefinition, backfill_policy: dg.BackfillPolicy) -> list[dg.AssetsDefinition]:
    """Return the asset that fetches."""

    @dg.asset(
        key=["inputs", "fetched_candles"],
        group_name="inputs",
        partitions_def=months,
        backfill_policy=backfill_policy,
        pool=INPUT_WRITER,
        kinds={"parquet"},
    )
    def fetched_candles(context: dg.AssetExecutionContext, config: FetchConfig, lab: Lab) -> None:
        """Fetches the candles that the windows of a month's calls still miss; what was answered is never asked again."""
        home, reports = lab.open(), []
        for month in context.partition_keys:
            with heeding(context):
                stop_if_canceled(context)
                report = _fetch(home, month, config)
            context.add_asset_metadata(_metadata(report), asset_key=context.asset_key, partition_key=month)
            for token, sentence in report.refused.items():
                context.log.error(f"{month}: {token}: refused: {sentence}")
            reports.append(report)
            if report.stopped:
                break  # the source does not answer: the other months would wait for the same
        for report in reports:
            report.require_whole()

    return [fetched_candles]


def _fetch(home: "Home", month: str, config: FetchConfig) -> "FetchReport":
    from quantbot_pipeline.errors import InputError
    from quantbot_pipeline.ingest.connectors.fetch import fetch_candles
    from quantbot_pipeline.months import parse_day

    source = config.source or home.settings.fetch_source
    if not source:
        raise InputError("no source to ask; set `source` in the launchpad, or QUANTBOT_FETCH_SOURCE")
    first, last = parse_day(month, end=False), parse_day(month, end=True)
    horizon = round(config.horizon_hours * 3_600_000)
    interval = config.interval or home.settings.fetch_interval
    return fetch_candles(home, source, interval, from_ms=first, to_ms=last, horizon_ms=horizon)


def _metadata(report: "FetchReport") -> dict[str, dg.MetadataValue]:
    counts = ("calls", "windows", "missing", "requests", "answers", "empty", "inserted", "updated")
    made: dict[str, dg.MetadataValue] = {name: dg.MetadataValue.int(getattr(report, name)) for name in counts}
    return made | {
        "source": dg.MetadataValue.text(f"{report.source}, {report.interval}"),
        "refused_tokens": dg.MetadataValue.int(len(report.refused)),
        "left_out": dg.MetadataValue.json(report.left_out),
        "rejected": dg.MetadataValue.json(report.rejected),
    }
