"""Requests over HTTP: a token bucket per host, retries with growing pauses, Retry-After, and no secret in any sentence.

Belongs here: how bytes come from a host, whole or not at all. Does not: what they mean.
"""

import email.utils
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from quantbot_pipeline.errors import InputError
from quantbot_pipeline.ingest.connectors.common import SourceError, UnknownThere, require_extra
from quantbot_pipeline.interrupts import stop_if_asked

if TYPE_CHECKING:
    import httpx
    import tenacity

ATTEMPTS = 6
SPENT = f"no answer after {ATTEMPTS} attempts"
LONGEST_WAIT_S = 900.0  # a host that asks for more is left alone; the next run goes on
LARGEST_ANSWER = 64 << 20
TIMEOUT_S = 30.0
HIDDEN = "***"
Read = TypeVar("Read")


class Again(Exception):
    """A request that may succeed later; `after_s` is the host's own word."""

    def __init__(self, why: str, after_s: float = 0.0) -> None:
        super().__init__(why)
        self.after_s = after_s


def pause(seconds: float) -> None:
    """Sleep, but end soon after somebody asked to stop."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop_if_asked()
        time.sleep(min(left, 0.25))


def repeated(question: Callable[[], Read], backoff_s: float) -> Read:
    """Ask until there is an answer, with pauses that double, or as long as the host says. Raises the last Again."""
    import tenacity

    def wait(state: "tenacity.RetryCallState") -> float:
        error = state.outcome.exception() if state.outcome else None
        grown = backoff_s * 2.0 ** (state.attempt_number - 1) * random.uniform(1.0, 1.5)  # noqa: S311 (no secret)
        return max(grown, error.after_s if isinstance(error, Again) else 0.0)

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=wait,
        retry=tenacity.retry_if_exception_type(Again),
        sleep=pause,
        reraise=True,
    )
    return retrying(question)


class Bucket:
    """A token bucket: `per_minute` requests in the long run, at most `burst` at once."""

    def __init__(self, per_minute: float, burst: int = 1) -> None:
        self.rate, self.burst = per_minute / 60.0, float(burst)
        self.tokens, self.seen = self.burst, time.monotonic()

    def take(self) -> None:
        """Wait for a token, and take it."""
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self.seen) * self.rate) - 1.0
        self.seen = now
        if self.tokens < 0:
            pause(-self.tokens / self.rate)


_buckets: dict[tuple[str, float], Bucket] = {}


def bucket_of(url: str, per_minute: float) -> Bucket:
    """Return the one bucket of a host in this process."""
    return _buckets.setdefault((urlsplit(url).netloc, per_minute), Bucket(per_minute))


class Http:
    """A host with its rate, its headers and its secrets; `backoff_s` is the first pause before a second attempt."""

    def __init__(
        self,
        base_url: str,
        per_minute: float,
        *,
        backoff_s: float = 1.0,
        headers: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
    ) -> None:
        require_extra("httpx", "tenacity")
        import httpx

        self.base, self.bucket, self.backoff_s = base_url.rstrip("/"), bucket_of(base_url, per_minute), backoff_s
        if urlsplit(self.base).scheme not in ("http", "https"):
            raise InputError(f"{self.base}: no address of a host; it begins with https://")
        self.secrets = tuple(secret for secret in secrets if secret)
        self.sent = 0
        self._client = httpx.Client(headers=dict(headers or {}), timeout=TIMEOUT_S, follow_redirects=False)

    def hide(self, text: str) -> str:
        """Return a text without the secrets."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def get(
        self,
        path: str,
        read: Callable[[bytes], Read],
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, Read]:
        """Return the body of an answer without secrets, and what `read` makes of it.

        A cut answer, one that `read` refuses with ValueError, 429, 5xx and a broken connection are asked for again. Raises
        UnknownThere for 404, and SourceError for every other answer and when the attempts are spent.
        """
        where = f"{self.base}{path}"
        try:
            return repeated(lambda: self._once(where, read, params, headers), self.backoff_s)
        except Again as e:
            why = self.hide(str(e))
            raise SourceError(f"{where}: {SPENT}: {why}; run the same again later") from None

    def _once(
        self,
        where: str,
        read: Callable[[bytes], Read],
        params: Mapping[str, str | int] | None,
        headers: Mapping[str, str] | None,
    ) -> tuple[bytes, Read]:
        import httpx

        self.bucket.take()
        stop_if_asked()
        self.sent += 1
        try:
            with self._client.stream("GET", where, params=params, headers=headers) as reply:
                self._judge(where, reply)
                body = _whole(where, reply)
        except httpx.HTTPError as e:
            raise Again(f"{type(e).__name__}: {str(e)[:200]}") from None
        for secret in self.secrets:
            body = body.replace(secret.encode(), HIDDEN.encode())
        try:
            return body, read(body)
        except ValueError as e:
            raise Again(f"the answer is cut or no answer of this kind: {str(e)[:200]}") from None

    def _judge(self, where: str, reply: "httpx.Response") -> None:
        status = reply.status_code
        if status in (408, 425, 429) or status >= 500:
            after = _retry_after(reply.headers.get("retry-after"))
            if after > LONGEST_WAIT_S:
                raise SourceError(f"{where}: the host asks to wait {after:,.0f} s; run the same again after that")
            raise Again(f"status {status}", after)
        if status == 404:
            raise UnknownThere(f"{where}: status 404")
        if status in (401, 403):
            raise SourceError(f"{where}: status {status}: the host refuses; check the key and what it may ask for")
        if status != 200:
            raise SourceError(
                f"{where}: status {status}; the host does not take this request, or its interface changed"
            )


def _whole(where: str, reply: "httpx.Response") -> bytes:
    pieces, size = [], 0
    for piece in reply.iter_bytes():
        size += len(piece)
        if size > LARGEST_ANSWER:
            raise SourceError(
                f"{where}: an answer of more than {LARGEST_ANSWER >> 20} MiB; it is no answer of this kind"
            )
        pieces.append(piece)
    return b"".join(pieces)


def _retry_after(text: str | None) -> float:
    """Return the seconds of a header Retry-After, which is a number or a date."""
    if not text:
        return 0.0
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
