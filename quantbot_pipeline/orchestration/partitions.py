"""Month partitions: their keys are the `YYYY-MM` of the run directories. Define partition sets here."""

from collections.abc import Mapping

import dagster as dg

from quantbot_pipeline.months import month_range

PARTITION, RANGE_START, RANGE_END = (
    "dagster/partition",
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
)

# The web UI's run list shows tags of users by itself, and those of Dagster on request (all but `dagster/partition`).
MONTHS_TAG = "quantbot/months"


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
    tags = {RANGE_START: months[0], RANGE_END: months[-1]}
    return tags | months_tag(tags)


def months_tag(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tag that names the range of months of a run with these tags; none for a run without a range."""
    if RANGE_START not in tags or RANGE_END not in tags:
        return {}
    first, last = tags[RANGE_START], tags[RANGE_END]
    return {MONTHS_TAG: first if first == last else f"{first} … {last}"}
