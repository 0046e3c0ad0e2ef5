"""The list of sources, and how one is made from the settings of a home. A new source is a file in this folder and a line here."""

import time
from typing import TYPE_CHECKING

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.connectors import binance_vision, birdeye, geckoterminal
from quantbot_pipeline.ingest.connectors.ccxt_exchange import CcxtExchange
from quantbot_pipeline.ingest.connectors.common import Source
from quantbot_pipeline.ingest.connectors.http import Http
from quantbot_pipeline.ingest.connectors.raw import RawStore

if TYPE_CHECKING:
    from quantbot_pipeline.settings import Settings

SOURCES = ("geckoterminal", "birdeye", "ccxt:EXCHANGE", "binance-vision")


def source_of(name: str, interval: str, settings: "Settings", raw: RawStore, *, with_key: bool = True) -> Source:
    """Return a source by its name; `with_key` is False where nothing will be asked. Raises InputError for an unknown one."""
    per_minute, backoff_s = settings.fetch_per_minute, settings.fetch_backoff_s
    if name == "geckoterminal":
        http = Http(settings.geckoterminal_url, per_minute or geckoterminal.PER_MINUTE, backoff_s=backoff_s)
        return geckoterminal.GeckoTerminal(name, interval, http, raw)
    if name == "birdeye":
        key = birdeye.birdeye_key() if with_key else ""
        headers = {"X-API-KEY": key, "accept": "application/json"}
        http = Http(
            settings.birdeye_url, per_minute or birdeye.PER_MINUTE, backoff_s=backoff_s, headers=headers, secrets=(key,)
        )
        return birdeye.Birdeye(name, interval, http)
    if name == "binance-vision":
        http = Http(settings.binance_vision_url, per_minute or binance_vision.PER_MINUTE, backoff_s=backoff_s)
        return binance_vision.BinanceVision(name, interval, http, int(time.time() * 1000))
    if name.startswith("ccxt:") and name != "ccxt:":
        return CcxtExchange(name, interval, url=settings.ccxt_url, per_minute=per_minute, backoff_s=backoff_s)
    raise InputError(f"--source {name!r} is unknown; choose one of {', '.join(SOURCES)}")
