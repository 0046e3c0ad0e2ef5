"""Raw answers under `data/raw/SOURCE/interval=5m/mint=TOKEN/FROM-TO.json.zst`: what was asked for is never asked again.

A file's name is the stretch of time that it answers, in UTC ms. An answer without candles ends in `.empty`. A file under
`pending/` names an answer that the candle store may lack: it is made before the answer, and goes after the ingest.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from quantbot_pipeline.durable import disk_errors, fsync_path, locked, replacing
from quantbot_pipeline.ingest.connectors.common import Answer, Span

EMPTY = ".empty"
PACKED = (".zip",)


def folder_name(source: str) -> str:
    """Return the folder of a source: `ccxt:kraken` is `ccxt-kraken`."""
    return source.replace(":", "-")


class RawStore:
    """The kept answers of one source; one process at a time adds to them."""

    def __init__(self, folder: Path, source: str, lock_timeout_s: float, *, key: str = "mint") -> None:
        self.root, self.lock_timeout_s, self.key = folder / folder_name(source), lock_timeout_s, key

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the source: two processes would ask for the same, at twice the rate."""
        with locked(self.root / ".fetch.lock", self.lock_timeout_s):
            for left in self.root.glob("**/.*.tmp"):
                left.unlink(missing_ok=True)  # of a fetch that was killed
            yield

    def place(self, interval: str, mint: str) -> Path:
        """Return the folder of the answers about a token (or a chat, of which the level is no interval)."""
        return self.root / self._level(interval) / f"{self.key}={quote(mint, safe='')}"

    def _level(self, interval: str) -> str:
        return f"interval={interval}" if self.key == "mint" else interval

    def kept(self, interval: str, mint: str) -> list[Span]:
        """Return the stretches that kept answers cover, ascending."""
        spans = []
        folder = self.place(interval, mint)
        for path in folder.iterdir() if folder.is_dir() else ():
            first, dash, last = path.name.split(".")[0].partition("-")
            if dash and first.isdigit() and last.isdigit():
                spans.append(Span(int(first), int(last)))
        return sorted(spans)

    def keep(self, interval: str, mint: str, answer: Answer) -> Path:
        """Keep an answer; what is kept is on the disk when this returns."""
        span = answer.covered
        ending = EMPTY if not answer.rows else answer.suffix + ("" if answer.suffix in PACKED else ".zst")
        target = self.place(interval, mint) / f"{span.start}-{span.end}{ending}"
        packed = answer.body if answer.suffix in PACKED else packed_bytes(answer.body)
        if answer.rows:
            self._write(self._marker(target), target.relative_to(self.root).as_posix().encode())
        self._write(target, packed)
        return target

    def keep_lookup(self, kind: str, mint: str, body: bytes) -> None:
        """Keep an answer that is no candles, such as the pools of a token."""
        self._write(self._lookup(kind, mint), packed_bytes(body))

    def lookup(self, kind: str, mint: str) -> bytes | None:
        """Return a kept answer that is no candles; None if nobody asked yet."""
        path = self._lookup(kind, mint)
        return unpacked_bytes(path) if path.exists() else None

    def pending(self, interval: str) -> dict[Path, Path]:
        """Return {answer: marker} of the answers that the store may lack, in byte order."""
        found = {}
        for marker in (self.root / "pending").glob("*.todo"):
            answer = self.root / marker.read_text(encoding="utf-8")
            if not answer.exists():  # killed between the two, or removed by its owner
                marker.unlink(missing_ok=True)
            elif answer.relative_to(self.root).parts[0] == self._level(interval):
                found[answer] = marker
        return {answer: found[answer] for answer in sorted(found, key=os.fsencode)}

    def taken(self, marker: Path) -> None:
        """Forget that an answer has to be ingested."""
        marker.unlink(missing_ok=True)

    def _marker(self, target: Path) -> Path:
        name = hashlib.sha256(target.relative_to(self.root).as_posix().encode()).hexdigest()[:32]
        return self.root / "pending" / f"{name}.todo"

    def _lookup(self, kind: str, mint: str) -> Path:
        # No ending that the ingest of a folder would take for candles.
        return self.root / kind / f"{quote(mint, safe='')}.answer"

    def _write(self, target: Path, content: bytes) -> None:
        with disk_errors(target):
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                fsync_path(target.parent.parent)
            with replacing(target) as temporary:
                temporary.write_bytes(content)


def packed_bytes(content: bytes) -> bytes:
    """Return bytes as one frame of zstd."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packing:
        packing.write(content)
    return bytes(sink.getvalue().to_pybytes())


def unpacked_bytes(path: Path) -> bytes:
    """Return the content of a kept answer."""
    with pa.OSFile(str(path)) as raw, pa.CompressedInputStream(raw, "zstd") as source:
        return bytes(source.read())
