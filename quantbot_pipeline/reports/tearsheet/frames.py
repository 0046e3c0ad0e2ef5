"""A tear sheet as the Python API gives it: frames, and the page.

Belongs here: which part of a sheet is a frame. Does not: any number.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbot_pipeline.frames import frame_of, frame_of_rows
from quantbot_pipeline.home import Home
from quantbot_pipeline.reports.tearsheet.sheet import TearSheet, calls_of, figure_rows

if TYPE_CHECKING:
    import pandas as pd


class Sheet:
    """A tear sheet: `verdict` is its first sentence; the rest are frames, and `html` is the page."""

    def __init__(self, home: Home, sheet: TearSheet, attrs: dict[str, Any]) -> None:
        self._home, self._sheet, self._attrs = home, sheet, attrs

    def __repr__(self) -> str:
        return f"Sheet({self._sheet.caller!r}, {self._sheet.policy_id or self._sheet.scheme!r}): {self.verdict}"

    @property
    def verdict(self) -> str:
        """The sentence that leads the sheet."""
        return self._sheet.verdict

    @property
    def figures(self) -> "pd.DataFrame":
        """Every figure with its unit and meaning, as `quantbot tearsheet` prints them."""
        return frame_of_rows(figure_rows(self._sheet), **self._attrs)

    @property
    def equity(self) -> "pd.DataFrame":
        """Equity, drawdown and 95 % band at the end of each UTC day."""
        return frame_of(self._sheet.days, **self._attrs)

    @property
    def months(self) -> "pd.DataFrame":
        """The account's return and the trades of each calendar month, and what stands beside them."""
        return frame_of_rows(self._sheet.months, **self._attrs)

    @property
    def trades(self) -> "pd.DataFrame":
        """The trades behind the sheet, in order of entry."""
        return frame_of(self._sheet.trades, **self._attrs)

    @property
    def calls(self) -> "pd.DataFrame":
        """Every call of the caller that has a window, with its trade if it has one."""
        return frame_of(calls_of(self._sheet), **self._attrs)

    @property
    def html(self) -> str:
        """The page: one file that needs no network."""
        from quantbot_pipeline.reports.tearsheet.page import render

        return render(self._sheet, self._home)

    def write(self, out: str | Path) -> Path:
        """Write the page and return its absolute path."""
        from quantbot_pipeline.reports.page.html import write_page

        return write_page(self.html, Path(out))
