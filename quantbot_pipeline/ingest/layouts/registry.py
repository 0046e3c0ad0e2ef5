"""The list of layouts, and the names, places and file names that follow from it.

A new source is a file in this folder and a line here.
"""

import re

from quantbot_pipeline.ingest.layouts.binance import BINANCE
from quantbot_pipeline.ingest.layouts.birdeye import BIRDEYE
from quantbot_pipeline.ingest.layouts.coingecko import COINGECKO
from quantbot_pipeline.ingest.layouts.coinmarketcap import COINMARKETCAP
from quantbot_pipeline.ingest.layouts.common import Layout
from quantbot_pipeline.ingest.layouts.cryptodatadownload import CRYPTODATADOWNLOAD
from quantbot_pipeline.ingest.layouts.frames import FRAMES
from quantbot_pipeline.ingest.layouts.freqtrade import FREQTRADE
from quantbot_pipeline.ingest.layouts.gecko_terminal import GECKO_TERMINAL
from quantbot_pipeline.ingest.layouts.kaggle import KAGGLE
from quantbot_pipeline.ingest.layouts.kraken import KRAKEN
from quantbot_pipeline.ingest.layouts.plain import BARE, PLAIN
from quantbot_pipeline.ingest.layouts.polygon import POLYGON
from quantbot_pipeline.ingest.layouts.tokens_table import TOKENS
from quantbot_pipeline.ingest.layouts.tradingview import TRADINGVIEW

# Names of the open time come before `timestamp`, which in some sources is the close.
LAYOUTS: tuple[Layout, ...] = (
    BINANCE,
    COINMARKETCAP,
    POLYGON,
    BIRDEYE,
    CRYPTODATADOWNLOAD,
    PLAIN,
    BARE,
    KRAKEN,
    TRADINGVIEW,
    KAGGLE,
    FRAMES,
    TOKENS,
    FREQTRADE,
    GECKO_TERMINAL,
    COINGECKO,
)
CLOSE_TIMES = ("close_time", "time_close")  # read last, where nothing says when a candle opens


def names_of(canonical: str) -> tuple[str, ...]:
    """Return every name of a column, the preferred one first: our own, then those of the layouts in their order."""
    named = [name for layout in LAYOUTS for name in layout.names.get(canonical, ())]
    last = CLOSE_TIMES if canonical == "ts_ms" else ()
    return tuple(dict.fromkeys((*named, *last)))


def by_place(width: int, at: tuple[str, ...] | None = None) -> Layout | None:
    """Return the layout of rows without names that have so many columns; `at` is where a JSON document holds them.

    A text file (`at` is None) is never stamped with the close unless somebody says so.
    """
    fits = [layout for layout in LAYOUTS if len(layout.by_place) == width]
    if at is None:
        return next((layout for layout in fits if not layout.close_stamped and not layout.rows_at), None)
    exact = [layout for layout in fits if layout.rows_at == at]
    closed = [layout for layout in fits if layout.close_stamped]
    return next(iter([*closed, *exact, *(layout for layout in fits if not layout.rows_at)]), None)


def by_file_name(stem: str) -> tuple[Layout, "re.Match[str]"] | None:
    """Return the layout whose file names look like `stem`, and what its pattern found there."""
    for layout in LAYOUTS:
        match = layout.file_name.fullmatch(stem) if layout.file_name else None
        if match:
            return layout, match
    return None
