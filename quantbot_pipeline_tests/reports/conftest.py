"""Fixtures of the dashboard's tests: one market and its page per session, and Debian's Chromium without a network."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from quantbot_pipeline.home import Home
from quantbot_pipeline_tests.support.markets import make_market
from quantbot_pipeline_tests.support.windows import ARGUMENTS, Window

OpenWindow = Callable[..., Window]


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with runs (see `markets`); nobody changes it."""
    return make_market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="session")
def page_file(market: Home) -> Path:
    """The dashboard of that home."""
    from quantbot_pipeline.reports.dashboard.page import write_dashboard

    return write_dashboard(market)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; tests that need it are skipped where it is not installed.

    For one module: while it is open an event loop runs in this thread, which other modules' tests (Dagster) must not meet.
    """
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("Chromium is not installed, so nobody looked at the dashboard: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def open_window(browser: Browser) -> Iterator[OpenWindow]:
    """Open a file in a window of its own: `open_window(path, width=1280, dark=False)`; fails the test if the page made noise."""
    opened: list[Window] = []

    def open_file(path: Path, *, width: int = 1280, dark: bool = False) -> Window:
        scheme: Literal["dark", "light"] = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        page: Page = context.new_page()
        opened.append(Window(page, path))
        return opened[-1]

    yield open_file
    noise = [line for window in opened for line in window.noise]
    for window in opened:
        window.page.context.close()
    assert not noise
