"""Fixtures of the tests of Dagster."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from quantbot_pipeline.home import Home
from quantbot_pipeline.orchestration.launch import open_instance
from quantbot_pipeline.settings import Settings
from quantbot_pipeline_tests.support.receivers import Receiver


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of the fresh home, as `quantbot ui` shows it."""
    with open_instance(Home(Settings(home=home))) as found:
        yield found


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Who gets the alerts of this process."""
    made = Receiver()
    monkeypatch.setenv("QUANTBOT_ALERT_URLS", made.url)
    yield made
    made.close()
