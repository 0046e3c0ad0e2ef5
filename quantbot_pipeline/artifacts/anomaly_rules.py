"""What must be true of the artifact `anomalies`, whatever the market did. Source: docs/anomalies.md."""

from collections.abc import Iterator

from quantbot_pipeline.artifacts.columns import Columns, Fault, above, counts, is_object, named
from quantbot_pipeline.vocabulary import ANOMALY_KINDS, SEVERITIES, SUBJECT_TYPES


def anomalies(t: Columns) -> Iterator[Fault]:
    """Yield the rules of single rows, and that no row is there twice."""
    yield from named(t, "subject", "reason")
    yield "kind", "unknown", ~t.among("kind", ANOMALY_KINDS)
    yield "severity", "unknown", ~t.among("severity", SEVERITIES)
    yield "subject_type", "unknown", ~t.among("subject_type", SUBJECT_TYPES)
    wrong = t.absent("other_subject") == (t["subject_type"] == "pair")
    yield "other_subject", "without a pair, or the other way round", wrong
    yield "subject", "repeated", t.repeated("kind", "subject", "other_subject", "from_ts_ms", "to_ts_ms", "reason")
    yield "to_ts_ms", "before from_ts_ms", t["to_ts_ms"] < t["from_ts_ms"]
    yield "score", "below the limit", above(t["limit"], t["score"])
    yield from counts(t, "calls_touched", "hits_touched")
    yield "details", "not a JSON object with sorted keys", t.unlike("details", is_object)
    yield "hits_touched", "more than calls_touched", t["hits_touched"] > t["calls_touched"]
