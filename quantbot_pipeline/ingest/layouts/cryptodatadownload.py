"""CryptoDataDownload: an address in line 1, `unix`, `date`, `symbol`, and the volumes of both sides by their names."""

import re

from quantbot_pipeline.ingest.layouts.common import Layout

CRYPTODATADOWNLOAD = Layout(
    "CryptoDataDownload",
    "the CSV as it is, the address in line 1 included; `Volume BTC` is the volume",
    names={"ts_ms": ("unix", "unix_timestamp"), "volume": ("volume *",)},
    file_name=re.compile(r"[A-Z][A-Za-z]+_(?P<token>[A-Z0-9]{5,14})_(?P<step>d|\d*[a-z]+)"),
)
