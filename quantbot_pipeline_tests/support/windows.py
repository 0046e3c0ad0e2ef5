"""A browser window on a dashboard file: going to its sections, reading its tables, and everything it should not do."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import Dialog, Locator, Page, Route

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip  # a table: what belongs together stands on one line
SECTIONS = (
    "overview", "callers", "policies", "frontier", "walk-forward", "tuning", "v1", "predictions", "anomalies", "calls", "errors",
)  # fmt: skip  # a table: what belongs together stands on one line


class Window:
    """One page. `noise` collects what must not happen: console messages, errors, dialogs, requests."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.address = path.as_uri()
        self.noise: list[str] = []
        page.on("console", lambda message: self.noise.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.noise.append(f"error: {error}"))
        page.on("dialog", self._dismiss)
        page.route("**/*", self._guard)

    def _dismiss(self, dialog: Dialog) -> None:
        self.noise.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _guard(self, route: Route) -> None:
        if route.request.url.split("#")[0] == self.address:
            route.continue_()
        else:
            self.noise.append(f"request: {route.request.url[:200]}")
            route.abort()

    def go(self, section: str, argument: str = "") -> None:
        """Open a section (`callers`), or a page of it (`caller`, its name), and wait until its charts are drawn."""
        address = f"#/{section}" + (f"/{quote(argument, safe='')}" if argument else "")
        self.page.goto(self.address + address)
        self.settle(address)

    def settle(self, address: str | None = None) -> None:
        """Wait until all charts of the present address are drawn."""
        shown = self.page.evaluate("location.hash || '#/overview'") if address is None else address
        self.page.wait_for_function("address => document.body.dataset.ready === address", arg=shown, timeout=20_000)

    def table(self, caption: str) -> Locator:
        """The table whose caption starts with these words."""
        return self.page.locator("table", has=self.page.locator("caption", has_text=caption)).first

    def rows(self, caption: str) -> list[dict[str, Any]]:
        """{column: exact number, or the text shown} of each row of a table."""
        return self.table(caption).evaluate(
            """table => [...table.tBodies[0].rows].map(row => Object.fromEntries([...row.querySelectorAll('[data-column]')].map(
                cell => [cell.dataset.column, cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value)])))"""
        )

    def charts(self) -> list[dict[str, int]]:
        """For each chart its size, and how many marks that hold data it has."""
        return self.page.evaluate(
            """() => [...document.querySelectorAll('.chart')].map(chart => {
                const box = chart.querySelector('svg')?.getBoundingClientRect() ?? {width: 0, height: 0};
                const marks = chart.querySelectorAll('.mark-symbol path, .mark-rect path, .mark-line path, .mark-rule line');
                return {width: box.width, height: box.height, marks: marks.length};
            })"""
        )
