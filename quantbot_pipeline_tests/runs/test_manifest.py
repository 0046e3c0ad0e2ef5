"""`run.json`: what is written can be read, and nothing else is believed; every refusal names the key."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbot_pipeline.errors import IntegrityError
from quantbot_pipeline.runs.manifest import MAX_MANIFEST_BYTES, RunManifest, parse_manifest, read_manifest
from quantbot_pipeline_tests.support.builders import HOSTILE, commit_run

WHERE = Path("run.json")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (commit_run(tmp_path_factory.mktemp("manifest")) / "run.json").read_bytes()


def test_what_is_written_is_read(content: bytes) -> None:
    manifest = parse_manifest(content, WHERE)
    assert isinstance(manifest, RunManifest)
    assert manifest.to_json() == content
    assert list(json.loads(content)) == list(RunManifest.model_fields)
    assert json.loads(content)["dataset"].keys() >= {
        "from",
        "to",
        "interval",
        "calls_count",
        "calls_excluded",
        "fingerprint",
    }


def test_text_of_users_travels_unchanged(content: bytes) -> None:
    data = json.loads(content)
    data["parameters"] |= {"texts": list(HOSTILE)} | {text: text for text in HOSTILE}
    data["git_branch"] = HOSTILE[0]
    again = parse_manifest(json.dumps(data).encode(), WHERE)
    assert again.parameters == data["parameters"] and again.git_branch == HOSTILE[0]
    assert json.loads(again.to_json()) == data


def test_newer_minor_versions_may_know_more(content: bytes) -> None:
    data = json.loads(content)
    data["schema_version"]["manifest"] = "1.7.0"
    data |= {"novelty": {"x": [1]}}
    data["timing"]["novelty_ms"] = 5
    data["artifacts"]["novelty"] = data["artifacts"]["paths"] | {"path": "novelty/novelty.parquet", "more": True}
    assert parse_manifest(json.dumps(data).encode(), WHERE).artifacts["novelty"].rows == 2


def put(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.pop(key)


WRONG: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (drop("run_id"), "run_id: Field required"),
    (drop("artifacts"), "artifacts: Field required"),
    (put("run_id", value="../../x"), "run_id: String should match"),
    (put("run_id", value="ABCDEF00-0000-4000-8000-000000000000"), "run_id: String should match"),
    (put("run_type", value="party"), "run_type: Value error, must be one of"),
    (put("status", value="done"), "status: Input should be"),
    (put("month", value="2024-13"), "month: String should match"),
    (put("month", value="2024-01\n"), "month: String should match"),
    (put("created_at", value="yesterday"), "created_at: .*must be an ISO-8601 time"),
    (put("created_at", value="2024-01-01T00:00:00"), "created_at: .*must say its offset from UTC"),
    (put("completed_at", value="0001-01-01T00:00:00+14:00"), "completed_at: .*must be an ISO-8601 time"),
    (put("started_at", value=5), "started_at: Input should be a valid string"),
    (put("dataset", "calls_count", value=-1), r"dataset\.calls_count: Input should be greater"),
    (put("dataset", "calls_count", value=10**30), r"dataset\.calls_count: Input should be less"),
    (put("dataset", "calls_count", value="many"), r"dataset\.calls_count: Input should be a valid integer"),
    (put("artifacts", "paths", "rows", value=2.5), r"artifacts\.paths\.rows: Input should be a valid integer"),
    (put("artifacts", "paths", "bytes", value=1 << 63), r"artifacts\.paths\.bytes: Input should be less"),
    (put("artifacts", "paths", "sha256", value="0" * 63), r"artifacts\.paths\.sha256: String should match"),
    (put("artifacts", "paths", "path", value="/etc/passwd"), r"artifacts\.paths\.path: .*inside the run directory"),
    (put("artifacts", "paths", "path", value="truth/../../x"), r"artifacts\.paths\.path: .*inside the run directory"),
    (put("artifacts", "paths", "path", value="truth/x\x00"), r"artifacts\.paths\.path: .*inside the run directory"),
    (
        put("artifacts", "paths", "path", value="truth/other.parquet"),
        r"artifacts\.paths\.path is not truth/paths\.parquet",
    ),
    (put("logs", "stdout", value="../../../etc/passwd"), r"logs\.stdout: .*inside the run directory"),
    (put("logs_sha256", "stdout", value="x"), r"logs_sha256\.stdout: String should match"),
    (put("timing", "total_ms", value="long"), r"timing\.total_ms: Input should be a valid number"),
    (put("parameters", value=[]), "parameters: Input should be a valid dictionary"),
    (put("parameters", "config_hash", value=5), r"parameters\.config_hash must be a string"),
    (put("parameters", "x", value="\ud800"), "surrogates not allowed"),
    (put("git_branch", value="\udcff"), "surrogates not allowed|valid string"),
    (put("schema_version", "manifest", value="2.0.0"), r"manifest version 2\.0\.0, written by quantbot 0, is newer"),
    (put("schema_version", "manifest", value="9" * 1000), "manifest version '9{20}' is no version"),
    (put("schema_version", value=1), "schema_version: Input should be"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_wrong_values_are_refused_by_their_key(
    content: bytes, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    data = json.loads(content)
    change(data)
    with pytest.raises(IntegrityError, match=rf"^run\.json: (?s:.*)({message})"):
        parse_manifest(json.dumps(data).encode(), WHERE)


def test_what_is_no_json_is_refused(content: bytes) -> None:
    text = content.decode()
    nonsense = {
        "empty": "",
        "null": "null",
        "array": "[]",
        "twice": text.replace('"run_type"', '"run_id": "x", "run_type"', 1),
        "twice inside": text.replace('"rows": 2', '"rows": 2, "rows": 3', 1),
        "NaN": text.replace('"total_ms": 12.5', '"total_ms": NaN'),
        "Infinity": text.replace('"latency_ms": 60000', '"latency_ms": -Infinity'),
        "1e999": text.replace('"latency_ms": 60000', '"latency_ms": 1e999'),
        "1e999 in a list": text.replace("60000", "[1e999]"),
        "NaN inside": text.replace("60000", '[{"x": [NaN]}]'),
        "many digits": text.replace("60000", "6" * 5000),
        "comment": "// hello\n" + text,
        "deep": "[" * 100_000,
        "deep object": '{"a":' * 100_000 + "1" + "}" * 100_000,
        "deep inside": text.replace("60000", "[" * 100_000 + "]" * 100_000),
        "deeper than 100": text.replace("60000", "[" * 99 + "]" * 99),
        "rather deep": text.replace("60000", "[" * 700 + "]" * 700).replace("12.5", "[" * 700 + "]" * 700),
        "two": text + text,
    }
    for name, wrong in nonsense.items():
        assert wrong != text, name
        with pytest.raises(IntegrityError, match=r"^run\.json: "):
            parse_manifest(wrong.encode(), WHERE)
    for cut in range(0, len(content) - 2, 7):
        with pytest.raises(IntegrityError):
            parse_manifest(content[:cut], WHERE)
    for encoded in (b"\xff\xfe" + content, content.decode().encode("utf-16"), b"\xef\xbb\xbf" + content):
        with pytest.raises(IntegrityError):
            parse_manifest(encoded, WHERE)


LITERALS = (
    "NaN", "-Infinity", "1e999", "[1e999]", '[[], {"x": [-1e999]}]', '{"x": NaN}', "-0", "-0.0", "5", "5.0", "1.5", "true", "null", '"5"',
    '""', '"\\":"', '"x\\" :"', '"\\u0061"', '"\\ud83d\\ude00"', '"\\ud83d"', "[]", "{}", '{"x": 1, "x": 1}', '{"x" : 1,"x":1}',
    '{"x": 1, "\\u0078"\t\n: 2}', '{"\\":": 1}', '{"x\\" :": {"": ["\\":"]}}', "9" * 4_299, "9" * 4_301, "01", "1.", "'x'", "1 1",
)  # fmt: skip  # a table: what belongs together stands on one line


@settings(max_examples=300)
@given(st.data())
def test_a_text_is_judged_alike_with_and_without_keys_that_only_newer_versions_know(
    content: bytes, data: st.DataObject
) -> None:
    """What is written like our own manifests is read by a faster parser, which by itself believes more than it should."""
    lines = content.decode().splitlines()
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(
            st.sampled_from([i for i, line in enumerate(lines) if '": ' in line and line.endswith((",", "{"))])
        )
        key, value = lines[at].split('": ', 1)
        colon = data.draw(st.sampled_from(['": ', '":', '" :', '"\t\r\n: ']))
        literal = data.draw(st.sampled_from(LITERALS) | st.just(value.rstrip(",")))
        if data.draw(st.booleans()):
            lines.insert(at, f"{key}{colon}{literal},")
        elif value.endswith(","):
            lines[at] = f"{key}{colon}{literal},"
    text = "\n".join(lines)
    plain, newer = _verdict(text), _verdict(text.replace("{", '{"newer": 0, ', 1))
    assert repr(plain) == repr(newer)


def _verdict(text: str) -> dict[str, Any] | None:
    try:
        manifest = parse_manifest(text.encode("utf-8", "surrogatepass"), WHERE).model_dump()
    except IntegrityError:
        return None
    manifest.pop("newer", None)
    return manifest


def test_a_file_that_claims_to_be_a_manifest_is_not_read_without_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content[:-3] + b" " * MAX_MANIFEST_BYTES + content[-3:])
    with pytest.raises(IntegrityError, match=r"run\.json: larger than 4 MiB, not a manifest"):
        read_manifest(tmp_path)
    path.unlink()
    with pytest.raises(IntegrityError, match=r"run\.json: No such file or directory"):
        read_manifest(tmp_path)
    path.mkdir()
    with pytest.raises(IntegrityError, match=r"run\.json: not a regular file"):
        read_manifest(tmp_path)
