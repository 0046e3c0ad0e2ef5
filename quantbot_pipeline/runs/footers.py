"""The rows and columns of a Parquet file from its footer, without parsing it where its beginning is known.

A footer holds, in this order, a version, the schema and the number of rows. All files that one version writes for one
artifact type agree up to the number of rows. So one comparison of bytes says that the schema is the contract's. Any other
footer is parsed.
"""

import functools
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from quantbot_pipeline.artifacts.schemas import ARTIFACTS
from quantbot_pipeline.versions import FORMAT_KEY, WRITER_KEY, format_of

TAIL = 8  # length of the footer (4 bytes, little endian) and the magic
MAGIC = b"PAR1"


class Footer(NamedTuple):
    """What a file holds: the number of rows, its columns, and the version and the program that it names."""

    rows: int
    schema: pa.Schema
    version: str | None = None
    written_by: str | None = None


def read_footer(file: bytes | Path, artifact_type: str) -> Footer:
    """The footer of a Parquet file, given as its content or its path. Raises pyarrow's errors for what is none."""
    if isinstance(file, Path):
        return _parsed(pq.read_metadata(file))
    return _known(file, artifact_type) or _parsed(pq.read_metadata(pa.BufferReader(file)))


def _parsed(metadata: pq.FileMetaData) -> Footer:
    said = metadata.metadata or {}
    version, program = (said[key].decode(errors="replace") if key in said else None for key in (FORMAT_KEY, WRITER_KEY))
    return Footer(metadata.num_rows, metadata.schema.to_arrow_schema(), version, program)


def _known(content: bytes, artifact_type: str) -> Footer | None:
    known = _known_beginning(artifact_type)
    size = int.from_bytes(content[-TAIL:-4], "little")
    start = len(content) - TAIL - size
    if content.endswith(MAGIC) and start > 0 and content.startswith(known, start):
        named = content.find(FORMAT_KEY, start) >= 0
        if named and content.find(_current_version(artifact_type), start) < 0:
            return None  # of another version
        version = format_of(artifact_type).current if named else None
        return Footer(_zigzag(content, start + len(known)), ARTIFACTS[artifact_type][1], version)
    return None


@functools.cache
def _current_version(artifact_type: str) -> bytes:
    """The bytes of the entry with today's version: the key, the field's header, the length and the text."""
    version = format_of(artifact_type).current.encode()
    return FORMAT_KEY + b"\x18" + bytes([len(version)]) + version


@functools.cache
def _known_beginning(artifact_type: str) -> bytes:
    """The bytes of a footer before the number of rows, as written today: what footers of 0 and of 1 row have in common."""
    schema = ARTIFACTS[artifact_type][1]
    row = [pa.array([{"string": "", "bool": False}.get(str(field.type), 0)], field.type) for field in schema]
    none, one = _footer_bytes(schema.empty_table()), _footer_bytes(pa.table(row, schema=schema))
    return none[: next(i for i, (a, b) in enumerate(zip(none, one, strict=False)) if a != b)]


def _footer_bytes(table: pa.Table) -> bytes:
    file = BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    content = file.getvalue()
    return content[-TAIL - int.from_bytes(content[-TAIL:-4], "little") : -TAIL]


def _zigzag(content: bytes, at: int) -> int:
    """A number as Thrift's compact protocol writes it: seven bits a byte, the lowest first; the lowest of all is the sign."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)
        at, shift = at + 1, shift + 7
