"""Work that takes its time: a worker that imports this sleeps before each month, and makes the month as ever."""

import os
import time
from typing import Any

from quantbot_pipeline.backtest import month

SLEEP_S = float(os.environ.get("SLOW_MONTH_S", "0"))
_run_month = month.run_month


def slow_run_month(*args: Any, **kwargs: Any) -> Any:
    """Sleep, then make the month."""
    time.sleep(SLEEP_S)
    return _run_month(*args, **kwargs)


month.run_month = slow_run_month
