"""A web hook on this machine, to which alerts are sent for real."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """A web hook: what it was sent, oldest first; while `down` it answers 500."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.down = False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not receiver.down:
                    receiver.got.append(body)
                self.send_response(500 if receiver.down else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server.server_port}/hook"

    def take(self) -> list[dict[str, Any]]:
        """What came since the last time."""
        got, self.got = self.got, []
        return got

    def titles(self) -> list[str]:
        return [message["title"].removeprefix("quantbot: ") for message in self.take()]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
