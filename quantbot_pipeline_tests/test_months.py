"""Months and days as UTC milliseconds, at their edges."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.months import (
    DAY_MS,
    contiguous,
    iso_ms,
    iso_now,
    month_of,
    month_range,
    month_start_ms,
    months_before,
    next_month,
    parse_day,
)

moments = st.integers(0, 10**14 - 1)


@given(moments)
def test_a_moment_lies_in_its_month(ts_ms: int) -> None:
    month = month_of(ts_ms)
    assert month_start_ms(month) <= ts_ms < month_start_ms(next_month(month))
    assert months_before(next_month(month), 1) == month


@given(moments)
def test_iso_text_is_exact(ts_ms: int) -> None:
    text = iso_ms(ts_ms)
    assert text.endswith("Z") and len(text) == 24
    read = datetime.fromisoformat(text)
    assert (read - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000 == pytest.approx(ts_ms, abs=1e-2)
    assert text[-4:-1] == f"{ts_ms % 1000:03}"


def test_a_month_begins_with_its_first_millisecond_in_utc() -> None:
    start = month_start_ms("2024-03")
    assert start == 1_709_251_200_000
    assert (month_of(start), month_of(start - 1)) == ("2024-03", "2024-02")
    assert month_start_ms("2024-03") - month_start_ms("2024-02") == 29 * DAY_MS
    assert [next_month(m) for m in ("2023-12", "2024-01", "2024-11")] == ["2024-01", "2024-02", "2024-12"]
    assert [months_before("2024-02", n) for n in (0, 1, 2, 14)] == ["2024-02", "2024-01", "2023-12", "2022-12"]
    assert iso_ms(start + 7) == "2024-03-01T00:00:00.007Z"
    assert abs(datetime.fromisoformat(iso_now()).timestamp() - datetime.now(UTC).timestamp()) < 60


def test_months_are_counted_over_years_and_cut_at_gaps() -> None:
    assert list(month_range("2023-11", "2024-02")) == ["2023-11", "2023-12", "2024-01", "2024-02"]
    assert list(month_range("2024-02", "2024-01")) == []
    assert list(month_range("9999-11", "9999-12")) == ["9999-11", "9999-12"]
    assert contiguous(["2023-11", "2023-12", "2024-01", "2024-03", "2025-03"]) == [
        ["2023-11", "2023-12", "2024-01"], ["2024-03"], ["2025-03"],
    ]  # fmt: skip  # a table: what belongs together stands on one line
    assert contiguous([]) == []


def test_days_as_people_write_them() -> None:
    assert parse_day("2024-02-29", end=False) == month_start_ms("2024-02") + 28 * DAY_MS
    assert parse_day("2024-02-29", end=True) == month_start_ms("2024-03")
    assert parse_day("2024-02", end=False) == month_start_ms("2024-02")
    assert parse_day("2024-12", end=True) == month_start_ms("2025-01")


@pytest.mark.parametrize(
    "text",
    ["", "2024", "2024-13", "2024-00", "2023-02-29", "2024-1-", "01/02/2024", "2024-01-01T00:00", "yesterday", " 2024-01", "0999-01", "9999-12", "2024-01\n"],
)  # fmt: skip  # a table: what belongs together stands on one line
def test_what_is_no_day_is_refused(text: str) -> None:
    for end in (False, True):
        if (text, end) in (("9999-12", False), ("0999-01", False)):
            continue
        with pytest.raises(InputError, match="is not a day; write YYYY-MM-DD, or YYYY-MM for a whole month"):
            parse_day(text, end=end)
