"""Month partitions. Define partition sets here; their keys are the `YYYY-MM` of the run directories."""

from collections.abc import Mapping

import dagster as dg

from quantbot_pipeline.months import month_range
from quantbot_pipeline.settings import Settings

# end_offset=1: the current month is a partition too, so that an open month can be backtested.
months = dg.MonthlyPartitionsDefinition(
    start_date=Settings().partitions_start, fmt="%Y-%m", timezone="UTC", end_offset=1
)

PARTITION, RANGE_START, RANGE_END = (
    "dagster/partition",
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
)


def months_of(tags: Mapping[str, str]) -> list[str]:
    """The months of a Dagster run, from its tags; none for a run without partitions."""
    if RANGE_START in tags and RANGE_END in tags:
        return list(month_range(tags[RANGE_START], tags[RANGE_END]))
    return [tags[PARTITION]] if PARTITION in tags else []
