"""Month partitions: their keys are the `YYYY-MM` of the run directories. Define partition sets here."""

from collections.abc import Mapping

import dagster as dg

from quantbot_pipeline.months import month_range

PARTITION, RANGE_START, RANGE_END = (
    "dagster/partition",
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
)


def month_partitions(start: str) -> dg.MonthlyPartitionsDefinition:
    """Return the months from `start` (YYYY-MM) on. The current one is among them, so that an open month can be backtested."""
    return dg.MonthlyPartitionsDefinition(start_date=start, fmt="%Y-%m", timezone="UTC", end_offset=1)


def months_of(tags: Mapping[str, str]) -> list[str]:
    """Return the months of a Dagster run, from its tags; none for a run without partitions."""
    if RANGE_START in tags and RANGE_END in tags:
        return list(month_range(tags[RANGE_START], tags[RANGE_END]))
    return [tags[PARTITION]] if PARTITION in tags else []


def range_tags(months: list[str]) -> dict[str, str]:
    """Return the tags of a run over a stretch of months."""
    return {RANGE_START: months[0], RANGE_END: months[-1]}
