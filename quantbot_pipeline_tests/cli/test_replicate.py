"""`quantbot replicate`: what it prints, how it ends, and what it refuses."""

import json
import uuid
from pathlib import Path

import pytest

from quantbot_pipeline_tests.conftest import Quantbot
from quantbot_pipeline_tests.support.builders import commit_run
from quantbot_pipeline_tests.support.object_store import KEY, SECRET, Store, leaks, options


def test_it_copies_names_what_differs_and_shows_no_secret(
    home: Path,
    quantbot: Quantbot,
    monkeypatch: pytest.MonkeyPatch,
    object_store: Store,
    credentials: None,
    tmp_path: Path,
) -> None:
    first, second = (commit_run(home / "runs", month) for month in ("2024-01", "2024-02"))
    url = f"s3://{object_store.make_bucket(f'b{uuid.uuid4().hex}')}/lab"
    monkeypatch.setenv("QUANTBOT_STORE_OPTIONS", json.dumps({"endpoint": "http://127.0.0.1:1", "timeout": "1s"}))
    monkeypatch.setenv("QUANTBOT_REPLICA_OPTIONS", json.dumps({url: options(object_store.endpoint)}))
    planned = quantbot("replicate", "runs", url, "--dry-run", "--format", "json")
    assert [row["state"] for row in planned.json()] == ["missing", "missing"]
    assert quantbot("replicate", "runs", url, "--months", "2024-02").status == 0
    monkeypatch.setenv("QUANTBOT_REPLICAS", f"file://{tmp_path}/near {url}")
    done = quantbot("replicate", "--format", "json")
    assert [(row["destination"], row["state"]) for row in done.json()] == [
        (f"{tmp_path}/near", "copied"),
        (f"{tmp_path}/near", "copied"),
        (url, "copied"),
    ]
    assert f"{url}: 1 run copied" in done.err and "1 there already" in done.err
    near = tmp_path / "near" / first.relative_to(home / "runs") / "truth/paths.parquet"
    content = near.read_bytes()
    near.write_bytes(content[:-1] + b"?")
    assert quantbot("replicate").status == 0
    verified = quantbot("replicate", "--verify", "--format", "json")
    assert verified.status == 1 and "1 run not replicated" in verified.err
    assert [(row["run_dir"], row["state"]) for row in json.loads(verified.out)] == [
        (first.relative_to(home / "runs").as_posix(), "differs")
    ]
    assert near.read_bytes() == content[:-1] + b"?" and second.exists()
    text = "".join(done.out + done.err for done in (planned, done, verified))
    assert KEY not in text and SECRET not in text and leaks(home, tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "nowhere to copy to"),
        (("runs",), "only one place"),
        (("runs", "./runs"), "the source is a destination, too"),
        ((".", "elsewhere"), "a home, not a folder of runs"),
        (("nowhere", "elsewhere"), "no such folder of runs"),
        (("runs", "ftp://x/y"), "a place for runs must be a URL"),
        (("runs", f"s3://{KEY}:{SECRET}@b/x"), "must hold no credentials"),
        (("runs", "elsewhere", "--months", "2024-02/2024-01"), "write YYYY-MM"),
        (("runs", "elsewhere", "--months", "2024"), "write YYYY-MM"),
    ],
)
def test_what_it_cannot_do_is_one_line(
    home: Path, quantbot: Quantbot, arguments: tuple[str, ...], sentence: str
) -> None:
    commit_run(home / "runs")
    done = quantbot("replicate", *arguments)
    assert done.status == 2 and sentence in done.complaint and SECRET not in done.complaint
    assert not (home / "elsewhere").exists()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("REPLICAS", f"s3://{KEY}:{SECRET}@b/x", "must hold no credentials"),
        ("REPLICAS", "runs", "must be a URL that begins with"),
        ("REPLICA_OPTIONS", f'["{SECRET}"]', "must be a JSON object"),
        ("REPLICA_OPTIONS", f'{{"s3://b/x": {{"a": ["{SECRET}"]}}}}', "values are texts, true or false"),
    ],
)
def test_settings_that_are_none_are_refused_without_repeating_them(
    home: Path, quantbot: Quantbot, monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    assert home.exists()
    monkeypatch.setenv(f"QUANTBOT_{name}", value)
    said = quantbot("leaderboard").complaint
    assert said.startswith(f"QUANTBOT_{name}: ") and sentence in said and SECRET not in said
