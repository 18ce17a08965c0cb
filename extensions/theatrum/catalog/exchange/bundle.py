"""Bundles: images with all that belongs to them, as one zip or folder that explains
itself.

    catalog.export(catalog.images.filter(project="mice"), "mice.zip")
    other.import_bundle("mice.zip", project="mice")

What is in it:

    catalog.json             all rows, by table; places of files as they are in here
    tables/TABLE.parquet     the same, for programs that read no JSON
    data/1/...               originals, derived OME-Zarr, tables and files beside
    ro-crate-metadata.json   licence, people, every file with size and SHA-256
    SHA256SUMS               of every other file; `sha256sum -c` checks it

The same rows and files make the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from theatrum.catalog.backend import RowData
from theatrum.catalog.exchange import crate
from theatrum.catalog.exchange.gathering import TABLES, Rows, gather, plain
from theatrum.catalog.exchange.places import PLACED, Places, place
from theatrum.catalog.exchange.zips import Member, of_bytes, of_file
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.spec import Spec
from theatrum.catalog.zarr_store import file_digest

FORMAT: Final = "theatrum-bundle"
VERSION: Final = 1
ROWS: Final = "catalog.json"
SUMS: Final = "SHA256SUMS"
_NO_DIGEST: Final = "0" * 64


@dataclass
class _Digests:
    """SHA-256 by name: known, taken while a file is sent, else read for."""

    files: Mapping[str, Path]
    known: dict[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str:
        if name not in self.known:
            self.known[name] = file_digest(self.files[name])
        return self.known[name]

    def watched(self, name: str, member: Member) -> Member:
        """The member, whose digest is taken as it is read."""

        def blocks(begin: int) -> Iterator[bytes]:
            if begin or name in self.known:
                yield from member.blocks(begin)
                return
            digest = hashlib.sha256()
            for block in member.blocks(0):
                digest.update(block)
                yield block
            self.known[name] = digest.hexdigest()

        return Member(member.name, member.size, blocks, member.known)


def members(backend: LocalBackend, spec: Spec) -> list[Member]:
    """What a bundle of the images that a question finds consists of.

    No image is read; only headers and sizes of files are looked at.
    """
    rows = gather(backend, spec)
    placed = place(rows)
    content = _rows_json(rows, placed, spec)
    about = {ROWS: content} | {
        f"tables/{table}.parquet": parquet(rows.of(table))
        for table in TABLES
        if rows.of(table)
    }
    digests = _Digests(placed.files, dict(placed.digests))
    sizes = {name: path.stat().st_size for name, path in placed.files.items()}
    digests.known |= {
        name: hashlib.sha256(held).hexdigest() for name, held in about.items()
    }

    def described(digest: Callable[[str], str]) -> bytes:
        files = {name: (len(held), digest(name)) for name, held in about.items()}
        files |= {name: (size, digest(name)) for name, size in sizes.items()}
        said = crate.document(rows, files, (SUMS,))
        return json.dumps(said, indent=1, ensure_ascii=False).encode()

    def sums(digest: Callable[[str], str]) -> bytes:
        names = sorted([*about, *sizes, crate.NAME])
        lines = (f"{digest(name)}  {name}\n" for name in names)
        return "".join(lines).encode()

    def digest_of(name: str) -> str:
        if name == crate.NAME:
            return hashlib.sha256(described(digests.of)).hexdigest()
        return digests.of(name)

    return [
        *(of_bytes(name, held) for name, held in about.items()),
        *(
            digests.watched(name, of_file(name, path))
            for name, path in placed.files.items()
        ),
        _late(crate.NAME, described, digest_of),
        _late(SUMS, sums, digest_of),
    ]


def _late(
    name: str,
    make: Callable[[Callable[[str], str]], bytes],
    digest: Callable[[str], str],
) -> Member:
    """A member that tells of the others' digests: all are of one length, so that its
    size is known before they are."""
    size = len(make(lambda _: _NO_DIGEST))
    return Member(name, size, lambda begin: iter([make(digest)[begin:]]))


# Any: JSON
def _rows_json(rows: Rows, placed: Places, spec: Spec) -> bytes:
    told: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "query": spec.to_json(),
        "images": list(rows.images),
        "missing": [list(key) for key in sorted(placed.missing)],
        "rows": {
            table: [_row(table, row, placed) for row in rows.of(table)]
            for table in TABLES
        },
    }
    return json.dumps(told, indent=1, ensure_ascii=False).encode()


def _row(table: str, row: RowData, placed: Places) -> RowData:
    said = plain(row)
    column = PLACED.get(table)
    if column is not None:
        said[column] = placed.named.get((table, str(row["id"])), "")
    return said


def parquet(rows: list[RowData]) -> bytes:
    """Rows as Parquet; what is nested as JSON text, no place on this machine."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    inside = {"path", "uri", "manifest_uri", "deleted_at"}
    flat = [
        {
            name: json.dumps(value) if isinstance(value, dict | list) else value
            for name, value in row.items()
            if name not in inside
        }
        for row in rows
    ]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(flat), out)
    return out.getvalue()
