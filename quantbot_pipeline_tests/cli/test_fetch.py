"""`quantbot fetch` as people type it: tables, exit statuses, one sentence for each mistake."""

import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

import pytest

from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import call, solana_address, write_jsonl
from quantbot_pipeline_tests.support.hosts import Hosts, status

SECRET = "secret-key-of-the-test"


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    made = Hosts()
    monkeypatch.setenv("QUANTBOT_BIRDEYE_URL", made.url)
    monkeypatch.setenv("QUANTBOT_BIRDEYE_KEY", SECRET)
    monkeypatch.setenv("QUANTBOT_FETCH_PER_MINUTE", "60000")
    monkeypatch.setenv("QUANTBOT_FETCH_BACKOFF_S", "0.01")
    yield made
    made.close()


@pytest.fixture
def at_home(quantbot: Quantbot, home: Path, hosts: Hosts) -> Quantbot:
    """`quantbot` on a home with two more calls, of January and February 2023."""
    calls = [call(solana_address(1), "2023-01-05"), call(solana_address(2), "2023-02-05")]
    assert quantbot("ingest", "calls", write_jsonl(home / "more.jsonl", calls)).status == 0
    return quantbot


def test_what_would_be_fetched_is_fetched(at_home: Quantbot, hosts: Hosts) -> None:
    asked = ("fetch", "candles", "--source", "birdeye", "--from", "2023-01", "--to", "2023-02-28")
    (planned,) = [at_home(*asked, "--dry-run", "--format", "json").json()]
    assert (planned["dry_run"], planned["requests"], hosts.asked) == (True, 2, [])
    done = at_home(*asked)
    assert done.status == 0
    assert "Fetched candles 5m from birdeye" in done.out
    assert len(hosts.asked) == 2
    again = at_home("fetch", "candles", "--source", "birdeye", "--calls", "2023-01", "--format", "json").json()
    assert (again["calls"], again["missing"], again["requests"]) == (1, 0, 0)


def test_a_source_that_refuses_is_status_1_and_no_key_is_told(at_home: Quantbot, hosts: Hosts) -> None:
    hosts.faults = [None, status(401, SECRET.encode())]
    done = at_home("fetch", "candles", "--source", "birdeye", "--from", "2023-01", "--to", "2023-02")
    assert done.status == 1
    assert "status 401: the host refuses; check the key" in done.err
    assert "Fetched" in done.out, "what was kept before is told"
    assert SECRET not in done.out + done.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--source", "nowhere"], "--source 'nowhere' is unknown; choose one of geckoterminal"),
        (["--source", "birdeye", "--calls", "2023-01", "--to", "2023-02"], "give one of the two"),
        (["--source", "birdeye", "--calls", "2023-01-05"], "is not a month; write YYYY-MM"),
        (["--source", "birdeye", "--calls", "2023-13"], "is not a day"),
        (["--source", "birdeye", "--from", "2023-03", "--to", "2023-02"], "is after --to"),
        (["--source", "birdeye", "--interval", "10m"], "birdeye has no such candles; choose one of 1m"),
        (["--source", "birdeye", "--horizon-hours", "nan"], "--horizon-hours nan"),
    ],
)
def test_a_mistake_is_one_sentence_and_asks_nobody(
    at_home: Quantbot, hosts: Hosts, options: list[str], told: str
) -> None:
    done = at_home("fetch", "candles", *options)
    assert (done.status, hosts.asked) == (2, [])
    assert told in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (("candles", "--source", "birdeye"), "httpx"),
        (("candles", "--source", "ccxt:kraken"), "ccxt"),
        (("calls", "--chat", "@x"), "telethon"),
    ],
)
def test_a_missing_extra_is_one_sentence(
    at_home: Quantbot, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], module: str
) -> None:
    found = PathFinder.find_spec

    class Without(PathFinder):
        """The libraries of this environment, less one."""

        @classmethod
        def find_spec(cls, fullname: str, *more: object) -> ModuleSpec | None:
            return None if fullname == module else found(fullname, *more)  # type: ignore[arg-type]

    finders = [Without if finder is PathFinder else finder for finder in sys.meta_path if "Editable" not in str(finder)]
    monkeypatch.setattr(sys, "meta_path", finders)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    done = at_home("fetch", *command)
    assert done.status == 2
    assert f"{module} is not installed; install the extra: pip install 'quantbot-pipeline[sources]'" in done.err


def test_the_keys_of_telegram_are_asked_for_by_name(quantbot: Quantbot) -> None:
    pytest.importorskip("telethon")
    done = quantbot("fetch", "calls", "--chat", "@gems")
    assert done.status == 2
    assert "QUANTBOT_TELEGRAM_API_ID is not set" in done.err
