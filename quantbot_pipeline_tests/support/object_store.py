"""An object store for tests: moto's server in this process, buckets in it, and a proxy that counts requests or breaks them.

The proxy speaks HTTP/1.1 with the client and forwards each request on a connection of its own. What happens to a request its
`plan` decides: None forwards it; `500`, `503` … answer so; `cut` closes before, `half` after half of the body; `lost` closes after
the store has done it; `hang` answers never; `unconditional` forwards it without its condition; `gateway` refuses an ETag in quotes, as
a RADOS Gateway does. A callable is called before the
request is forwarded, or, when it has an attribute `after`, when the store has answered and the client does not know yet.
"""

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from quantbot_pipeline.bucket import Bucket
from quantbot_pipeline.runs.objects import ObjectRuns

# Words that no file, log, error or page may show: the tests look for them everywhere.
KEY, SECRET = "AKIAtestkeyNEVERSHOWN", "secretNEVERSHOWN0123456789"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
Plan = Callable[[int, str, str], Any]


class Store:
    """A running S3 server at `endpoint`, and clients of it that are not ours."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        import boto3

        self.client: Any = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )

    def make_bucket(self, name: str) -> str:
        """Make a bucket; return its name."""
        self.client.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """All keys of a bucket that begin with a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def read(self, bucket: str, key: str) -> bytes:
        """The bytes of an object."""
        content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def write(self, bucket: str, key: str, content: bytes) -> None:
        """Put an object, whatever is there: what a hand does."""
        self.client.put_object(Bucket=bucket, Key=key, Body=content)


@contextlib.contextmanager
def moto_store() -> Iterator[Store]:
    """moto's server on a free port of this machine, in threads of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Store(f"http://{host}:{port}")
    finally:
        server.stop()


def options(endpoint: str, **more: Any) -> dict[str, Any]:
    """Options of a store at this address: no TLS, and a client that soon gives up."""
    return {"endpoint": endpoint, "allow_http": True, "timeout": "2s", "connect_timeout": "2s", **more}


def object_runs(endpoint: str, url: str, folder: Path, **more: Any) -> ObjectRuns:
    """Runs in a store, as a machine with this folder for copies sees them."""
    return ObjectRuns(Bucket(url, options(endpoint)), folder, **more)


class Proxy:
    """A proxy in front of an S3 server; `log` has (method, path, what became of it) of every request."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removeprefix("http://")
        self.plan: Plan = lambda n, method, path: None
        self.log: list[tuple[str, str, str]] = []
        self.sent: list[int] = []  # bytes of the body of each answer
        self.hang_s = 5.0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Proxy":
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def begin(self, plan: Plan | None = None) -> None:
        """Forget what was, and follow this plan from the next request on, which is number 1."""
        with self._lock:
            self.log, self.sent = [], []
            self.plan = plan or (lambda n, method, path: None)

    def decide(self, method: str, path: str) -> tuple[int, Any]:
        """Number a request; return what is to become of it."""
        with self._lock:
            self.log.append((method, path, ""))
            self.sent.append(0)
            n = len(self.log)
        return n, self.plan(n, method, path)

    def note(self, n: int, what: str, sent: int = 0) -> None:
        """Write down what became of request n."""
        with self._lock:
            if n <= len(self.log):
                self.log[n - 1] = (*self.log[n - 1][:2], what)
                self.sent[n - 1] = sent


class _Cut(Exception):
    """The connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def _serve(self) -> None:
        body = self._body()
        n, fault = self.proxy.decide(self.command, self.path)
        try:
            self._act(n, fault, body)
        except (_Cut, ConnectionError, http.client.HTTPException):
            self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve

    def _act(self, n: int, fault: Any, body: bytes) -> None:
        if callable(fault) and not getattr(fault, "after", False):
            self.proxy.note(n, "before")
            fault()
            raise _Cut
        if fault == "cut":
            self.proxy.note(n, "cut")
            raise _Cut
        if fault == "hang":
            self.proxy.note(n, "hung")
            time.sleep(self.proxy.hang_s)
            raise _Cut
        if fault == "gateway":
            fault = "412" if self.headers.get("If-Match", "").startswith('"') else None
        if isinstance(fault, str) and fault.isdigit():
            self.proxy.note(n, fault)
            self._answer(int(fault), {"Content-Type": "application/xml"}, b"<Error><Code>Injected</Code></Error>")
            return
        status, headers, content = self._forward(body, fault)
        what = f"{fault or ''} {status}".strip() if isinstance(fault, str | None) else "after"
        self.proxy.note(n, what, len(content))
        if fault in ("lost", "half"):
            raise _Cut
        if callable(fault):
            fault()
            raise _Cut
        self._answer(status, headers, content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, body: bytes, fault: Any) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                conditional = fault == "unconditional" and name.lower() in ("if-none-match", "if-match")
                if name.lower() not in ("connection", "content-length", "transfer-encoding") and not conditional:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[: len(body) // 2] if fault == "half" else body)
            if fault == "half":
                connection.close()
                return 0, {}, b""
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection") or (
                self.command == "HEAD" and name.lower() == "content-length"
            ):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def set_credentials(setenv: Callable[[str, str], None]) -> None:
    """Let the clients of this process find the credentials where a cloud's users keep them, and nowhere else."""
    for name, value in CREDENTIALS.items():
        setenv(name, value)
    setenv("AWS_EC2_METADATA_DISABLED", "true")


def leaks(*folders: Path) -> list[str]:
    """Files under some folders that show a credential."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(word.encode() in path.read_bytes() for word in (KEY, SECRET))]
