"""Months and days as UTC milliseconds: the arithmetic of partitions, free of time zones, clocks and locales."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from quantbot_pipeline.errors import InputError

DAY_MS = 86_400_000


def month_of(ts_ms: int) -> str:
    """The UTC month (YYYY-MM) of a timestamp."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ts_ms)).strftime("%Y-%m")


def month_start_ms(month: str) -> int:
    """The first millisecond of a month."""
    return _ms(datetime(int(month[:4]), int(month[5:7]), 1, tzinfo=UTC))


def next_month(month: str) -> str:
    """The month after."""
    year, number = int(month[:4]), int(month[5:7])
    return f"{year + number // 12:04d}-{number % 12 + 1:02d}"


def months_before(month: str, n: int) -> str:
    """The month `n` months earlier."""
    index = int(month[:4]) * 12 + int(month[5:7]) - 1 - n
    return f"{index // 12:04d}-{index % 12 + 1:02d}"


def month_range(first: str, last: str) -> Iterator[str]:
    """All months from `first` to `last`, both included."""
    while first < last:
        yield first
        first = next_month(first)
    if first == last:  # asked last: after 9999-12 comes no month that sorts behind it
        yield first


def contiguous(months: list[str]) -> list[list[str]]:
    """Ascending months cut into stretches without a gap."""
    stretches: list[list[str]] = []
    for month in months:
        if stretches and next_month(stretches[-1][-1]) == month:
            stretches[-1].append(month)
        else:
            stretches.append([month])
    return stretches


def iso_ms(ts_ms: int) -> str:
    """ISO-8601 with milliseconds and `Z`."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ts_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ts_ms % 1000:03d}Z"


def iso_now() -> str:
    """The present as ISO-8601 with milliseconds and `Z`."""
    return iso_ms(_ms(datetime.now(UTC)))


def parse_day(text: str, *, end: bool) -> int:
    """UTC ms of the start of a day, or with `end` of the day after: `YYYY-MM-DD`, or `YYYY-MM` for the whole month.

    Raises InputError for anything else.
    """
    try:
        if len(text) == 7:
            month = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).strftime("%Y-%m")
            return month_start_ms(next_month(month) if end else month)
        return _ms(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)) + (DAY_MS if end else 0)
    except ValueError:
        raise InputError(f"{text!r} is not a day; write YYYY-MM-DD, or YYYY-MM for a whole month") from None


def _ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def parse_moment(text: str) -> int:
    """Return a day, a month (its beginning) or an ISO time as UTC ms. Raises InputError for anything else."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return parse_day(text, end=False)
        except InputError:
            raise InputError(f"{text!r}: not a time; write 2024-05, 2024-05-01 or 2024-05-01T12:00Z") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
