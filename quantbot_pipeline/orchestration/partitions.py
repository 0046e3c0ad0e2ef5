"""Month partitions. Define partition sets here; their keys are the `YYYY-MM` of the run directories."""

import dagster as dg

from quantbot_pipeline.settings import Settings

# end_offset=1: the current month is a partition too, so that an open month can be backtested.
months = dg.MonthlyPartitionsDefinition(
    start_date=Settings().partitions_start, fmt="%Y-%m", timezone="UTC", end_offset=1
)
