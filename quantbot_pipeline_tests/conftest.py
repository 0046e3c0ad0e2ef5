"""Fixtures shared by the tests of the command line and of Dagster; what they build is in `labs`."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dagster._core.storage.defs_state.base import _current_storage

from quantbot_pipeline_tests.support.labs import Done, make_lab

if TYPE_CHECKING:
    from quantbot_pipeline_tests.support.object_store import Store
    from quantbot_pipeline_tests.support.postgres import Postgres

Quantbot = Callable[..., Done]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the snapshots anew."""
    parser.addoption(
        "--snapshot-update", action="store_true", help="write the snapshot of the Dagster definitions anew"
    )


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: tests with a real daemon wait for it for most of their time."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def lab_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with inputs and nothing else; copied, never used itself."""
    home = tmp_path_factory.mktemp("lab") / "home"
    make_lab(home)
    return home


@pytest.fixture(scope="session")
def examples_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home that the examples are written on; whoever changes something copies it."""
    from examples.lab import make_lab as make_examples_lab

    home = tmp_path_factory.mktemp("examples") / "home"
    make_examples_lab(home, models=True)
    return home


@pytest.fixture(scope="session")
def object_store() -> "Iterator[Store]":
    """An S3 server for the session; each test makes a bucket of its own."""
    from quantbot_pipeline_tests.support.object_store import moto_store

    with moto_store() as store:
        yield store


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Postgres]":
    """A Postgres server for the session; each test makes a database of its own."""
    from quantbot_pipeline_tests.support.postgres import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of somebody who may use the store."""
    from quantbot_pipeline_tests.support.object_store import set_credentials

    set_credentials(monkeypatch.setenv)


@pytest.fixture
def home(lab_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh home with inputs (see `labs`), Dagster's state in it, and this process in it."""
    folder = tmp_path / "home"
    shutil.copytree(lab_template, folder)
    for name in ("QUANTBOT_HOME", "DAGSTER_HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("QUANTBOT_THREADS", "1")
    monkeypatch.setenv("QUANTBOT_UI_URL", "")  # so that what `quantbot ui` sets in this process ends with the test
    monkeypatch.delenv("QUANTBOT_UI_URL")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def own_state_storage() -> Iterator[None]:
    """Give each test Dagster's context variable as it was: an instance that is entered twice leaves a dead storage in it."""
    token = _current_storage.set(None)
    yield
    _current_storage.reset(token)


@pytest.fixture(scope="session")
def warm_engine() -> None:
    """Compiled or loaded before a command runs, so that no command has to say that it waits for it; one worker compiles."""
    from quantbot_pipeline.backtest.warm_up import warm_up

    warm_up()


@pytest.fixture
def quantbot(
    home: Path, warm_engine: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Quantbot:
    """`quantbot ARGUMENTS…` in this process, on the fresh home: the same code as the entry point, without its start-up."""
    from quantbot_pipeline.cli.main import main

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["quantbot", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return call
