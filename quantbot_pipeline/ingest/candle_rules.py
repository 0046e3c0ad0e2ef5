"""What a reader of candles looks for in a file, and when a row is a valid candle."""

from collections.abc import Iterable, Mapping

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.formats.common import Column
from quantbot_pipeline.ingest.layouts.registry import names_of

PRICES = ("open", "high", "low", "close")
NAMES = ("mint", "ts_ms", *PRICES, "volume")
# A row fails once, under the first test that it does not pass. A price is null, not finite or <= 0 in one comparison:
# DuckDB orders NaN above infinity.
FINITE_POSITIVE = "coalesce({c} > 0 AND {c} < 'infinity'::DOUBLE, false)"
_TIME = "t IS NULL OR isnan(t) OR t <= 0 OR t >= 1e14"
_INVALID = f"""
    WHEN NOT ({" AND ".join(FINITE_POSITIVE.format(c=c) for c in PRICES)}) THEN 'price'
    WHEN NOT (low <= open AND open <= high AND low <= close AND close <= high) THEN 'ohlc_order'
    WHEN volume IS NOT NULL AND NOT isnan(volume) AND NOT (volume >= 0 AND volume < 'infinity'::DOUBLE) THEN 'volume'
    WHEN t % $step <> 0 THEN 'off_grid'"""
_NO_VALUE = " AND ".join(f"({c} IS NULL OR isnan({c}))" for c in (*PRICES, "volume"))
REASON = f"CASE WHEN mint IS NULL OR mint = '' THEN 'mint' WHEN {_TIME} THEN 'timestamp' {_INVALID} END"
NOT_KEPT = ("no_trade", "not_closed")  # counted, but nothing is wrong with the row
# The ways in which texts say that there is no value.
_NO_WORDS = "('', 'null', 'none', 'nil', 'n/a', 'na', 'nan', '\\n', '-', '--', '#n/a', '<na>', 'undefined')"


def reason_of_input(texts: Iterable[str]) -> str:
    """Return the SQL of the reason against a row from outside; `texts` are prices whose text stands in `raw_NAME`.

    Nothing later than a day from now is taken, and a candle that goes on is not known yet. A row without any value is a
    minute without a trade; one with words for prices is not.
    """
    none = "".join(f" AND (raw_{c} IS NULL OR lower(trim(raw_{c})) IN {_NO_WORDS})" for c in texts)
    return f"""CASE WHEN mint IS NULL OR mint = '' THEN 'mint'
        WHEN {_TIME} OR t > $now + 86400000 THEN 'timestamp'
        WHEN {_NO_VALUE}{none} THEN 'no_trade' {_INVALID}
        WHEN t + $step > $now THEN 'not_closed' END"""


def number_sql(column: str, dtype: str) -> str:
    """Return the SQL of a price as a double; NULL for what is no number."""
    return column if dtype == "DOUBLE" else f"TRY_CAST({column} AS DOUBLE)"


def volume_sql(column: str, dtype: str) -> str:
    """Return the SQL of a volume: no value is an unknown one, a word a bad one."""
    if dtype != "VARCHAR":
        return number_sql(column, dtype)
    known = f"coalesce(TRY_CAST({column} AS DOUBLE), CASE WHEN lower(trim({column})) NOT IN {_NO_WORDS} THEN '-infinity'::DOUBLE END)"
    return f"CASE WHEN {column} IS NOT NULL THEN {known} END"


def columns_of(mapping: Mapping[str, str], *, token_known: bool, token_required: bool) -> list[Column]:
    """Return the columns to look for. `token_known`: a column of symbols is then no token, but tells two of them apart.

    `mapping` is {canonical name: name in the file}, given by the user. Raises InputError for a canonical name that is none.
    """
    unknown = [name for name in mapping if name not in NAMES]
    if unknown:
        raise InputError(f"--map {unknown[0]}=…: no such column; choose {', '.join(NAMES)}")
    return [
        _column("mint", mapping, () if token_known else names_of("mint"), required=token_required),
        _column("ts_ms", mapping, names_of("ts_ms")),
        *(_column(name, mapping, names_of(name)) for name in PRICES),
        _column("volume", mapping, names_of("volume"), required=False),
        Column("clock", names_of("clock"), required=False, beside=("ts_ms", "date")),
        Column("address", names_of("address"), required=False, only_without="mint"),
        Column("symbol", names_of("symbol"), required=False),
        Column("step", names_of("step"), required=False),
    ]


def _column(name: str, mapping: Mapping[str, str], aliases: tuple[str, ...], *, required: bool = True) -> Column:
    told = ("ts_ms", "timestamp", "date") if name == "ts_ms" else (name,)
    return Column(name, aliases, required, in_folder=name == "mint", mapped=mapping.get(name), told=told)
