"""How an export of three gigabytes leaves the service (T8), and BINARY's way beside it.

    python -m benchmarks.catalog.export [--images 1000] [--megabytes 3]

A catalogue is made in a temporary folder, an image a file of random bytes. The service
runs in a process of its own; a client on the same machine reads and throws away. Told
are when the first byte came, how long all took, and the most memory the service had,
in all and above what it had before. Then one part is fetched by `Range`.

BINARY's way: every file deflated into a zip in memory, which is sent when it is whole.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import httpx
from theatrum.catalog.database import open_database
from theatrum.catalog.record import recording
from theatrum.catalog.tables import ProjectGroup

WAITS_S = 60.0
MOST_FIRST_BYTE_S = 1.0
MOST_MEMORY_MB = 200.0


def fill(home: Path, images: int, megabytes: float) -> list[Path]:
    """Write the files and their rows."""
    files = home / "scans"
    files.mkdir(parents=True)
    content = os.urandom(int(megabytes * 1e6) - 8)
    paths = []
    database = open_database(home)
    with recording(database, "ann") as book:
        project = book.project("big")
        project.groups.append(ProjectGroup(group="@ann", role="viewer"))
        for number in range(images):
            path = files / f"{number}.nii"
            path.write_bytes(number.to_bytes(8, "big") + content)
            subject = book.subject(project, f"sub-{number}")
            book.image(
                project, path=str(path), name=f"scan-{number}", subject_id=subject.id,
                size_bytes=path.stat().st_size, modality="MR",
            )  # fmt: skip
            paths.append(path)
    database.close()
    return paths


def serve(home: Path) -> None:
    """Run the service until the standard input ends; tells its address first."""
    from tests.services.catalog.running import catalogue

    with catalogue(home, {"ann": []}) as site:
        print(site.url, flush=True)
        sys.stdin.read()


def memory_mb(process: int, name: str) -> float:
    """`VmRSS` or `VmHWM` of a process, in megabytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) / 1000
    raise ValueError(name)


def measured(home: Path, what: str) -> tuple[float, float, float, float, float]:
    """First byte and all of it (s), bytes, memory in all and above before (MB)."""
    command = [sys.executable, "-m", "benchmarks.catalog.export", "--serve", str(home)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as service:
        assert service.stdout is not None
        address = f"{service.stdout.readline().strip()}/api/v1/images"
        headers = {"Authorization": "token ann"}
        with httpx.Client(headers=headers, timeout=WAITS_S) as client:
            # What a service that somebody uses has loaded already.
            client.get(f"{address}?limit=1").raise_for_status()
            client.get(f"{address}/export.zip?name=scan-0&what={what}")
            before = memory_mb(service.pid, "VmRSS")
            Path(f"/proc/{service.pid}/clear_refs").write_text("5")
            begun = time.perf_counter()
            first, size = 0.0, 0
            with client.stream("GET", f"{address}/export.zip?what={what}") as answer:
                answer.raise_for_status()
                for block in answer.iter_raw(2**20):
                    first = first or time.perf_counter() - begun
                    size += len(block)
                assert int(answer.headers["content-length"]) == size
            whole = time.perf_counter() - begun
            peak = memory_mb(service.pid, "VmHWM")
            middle = time.perf_counter()
            ask = {"Range": f"bytes={size // 2}-{size // 2 + 2**20 - 1}"}
            part = client.get(f"{address}/export.zip?what={what}", headers=ask)
            assert part.status_code == 206
            part_s = time.perf_counter() - middle
        assert service.stdin is not None
        service.stdin.close()
        service.wait(WAITS_S)
    print(
        f"{what}: first byte {first:.2f} s, {size / 1e9:.2f} GB in {whole:.1f} s "
        f"({size / whole / 1e6:.0f} MB/s), memory {peak:.0f} MB in all, "
        f"{peak - before:.0f} MB above before; a part from the middle {part_s:.2f} s"
    )
    return first, whole, size, peak, peak - before


def binarys_way(paths: list[Path]) -> None:
    """Deflate everything into memory, in this process; tells time and memory."""
    begun = time.perf_counter()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, path.name)
    took = time.perf_counter() - begun
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"BINARY's way: first byte {took:.1f} s, memory {most:.0f} MB")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--megabytes", type=float, default=3.0)
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--ours-alone", action="store_true")
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        paths = fill(home, args.images, args.megabytes)
        kept = True
        for what in ("originals", "bundle"):
            first, _, _, _, above = measured(home, what)
            kept &= first < MOST_FIRST_BYTE_S and above < MOST_MEMORY_MB
        if not args.ours_alone:
            # In a process of its own, so that its memory is its own.
            other = multiprocessing.get_context("spawn").Process(
                target=binarys_way, args=(paths,)
            )
            other.start()
            other.join()
    print("T8 is kept" if kept else "T8 is missed")
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main()
