"""What the name of a candle file says: its token, its interval, and whether it holds candles of trades at all."""

import re
from pathlib import Path
from typing import NamedTuple

from quantbot_pipeline.ingest.files import PACKED_SUFFIXES, hive_value
from quantbot_pipeline.ingest.layouts.freqtrade import OTHER_KINDS
from quantbot_pipeline.ingest.layouts.registry import by_file_name
from quantbot_pipeline.ingest.tokens import addresses_in, folded_mint
from quantbot_pipeline.vocabulary import INTERVALS_MS

# M is a month and m a minute, so the case counts; words are those of exchanges and of their libraries.
_STEP = re.compile(r"(\d*)\s*(mo|[smhdwM]|S|H|D|W|min|mins|minute|minutes|hr|hour|hours|day|days|week)")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_WORD = re.compile(
    r"(?<![0-9A-Za-z])\d+(?:mo|min|hr|[smhdwMHDW])(?![0-9A-Za-z])|(?<![0-9A-Za-z])(?:daily|hourly|weekly)(?![0-9A-Za-z])"
)
_SPOKEN = {"daily": "1d", "hourly": "1h", "weekly": "1w", "monthly": "1M"}
_BY_MS = {ms: name for name, ms in INTERVALS_MS.items()}


class Said(NamedTuple):
    """What a name says; `step` is an interval as this project spells it, or the source's own word where it has none."""

    token: str | None = None
    step: str | None = None
    other: str | None = None  # what the file holds instead of candles of trades


def interval_word(text: str) -> str | None:
    """Return an interval as this project spells it (`1H` is 1h, `60m` is 1h, `7m` stays); None if the text is none."""
    text = _SPOKEN.get(text.lower(), text)
    match = _STEP.fullmatch(text)
    if match is None:
        return None
    number, unit = int(match[1] or 1), match[2]
    if unit in ("M", "mo"):
        return f"{number}M"
    ms = number * _UNIT_MS[unit[0].lower()]
    return _BY_MS.get(ms, f"{number}{unit[0].lower()}")


def said_by_name(path: Path) -> Said:
    """Return what the name of a file, or an address in the name of its folder, says."""
    stem = path.stem
    while Path(stem).suffix.lower() in PACKED_SUFFIXES or Path(stem).suffix.lower() in (".csv", ".json", ".parquet"):
        stem = Path(stem).stem
    token = step = other = None
    found = by_file_name(stem)
    if found is not None:
        groups = found[1].groupdict()
        token = groups.get("token")
        step = interval_word(f"{groups['minutes']}m" if groups.get("minutes") else groups.get("step") or "")
        kind = "trades" if groups.get("trades") else groups.get("kind")
        other = kind if kind in OTHER_KINDS else None
    addresses = addresses_in(stem.replace("_", " ")) or addresses_in(path.parent.name)
    if len(addresses) == 1:
        token = addresses[0]
    return Said(folded_mint(token) if token else None, step, other)


def stated_intervals(path: Path) -> list[str]:
    """Return every interval that the folder `interval=…` or else the words of a file's name state."""
    folder = hive_value(path, "interval")
    if folder is not None:
        return [interval_word(folder) or folder]
    exact = said_by_name(path).step
    if exact is not None:
        return [exact]
    words = (interval_word(word) for word in _WORD.findall(path.name))
    return list(dict.fromkeys(word for word in words if word))
