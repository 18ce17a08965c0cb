"""The process in which a local engine works: a node that crashes harms nobody else.

It is started by `local_engine` with its task as one line of JSON on standard input,
and tells its progress as lines of JSON on what was standard output; whatever the node
itself prints goes nowhere, because it could hold anything. A further line, or the end
of standard input, means that nobody wants the result any more. The structure set
appears under its name when it is whole and on disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom import Dataset
from theatrum.node import (
    BadInputs,
    Cancelled,
    Context,
    Labels,
    Node,
    NodeError,
    Outputs,
    Volume,
    find,
)
from theatrum.structures import (
    BadGeometry,
    Drawn,
    in_order,
    series_geometry,
    structure_set,
    volume,
)

PALETTE = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167), (160, 160, 160)),
)
"""Okabe and Ito's colours, which people with colour blindness tell apart."""
_EXTERNAL = frozenset({"body", "external", "skin"})
_HEX = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")

Say = Callable[[dict[str, Any]], None]  # Any: JSON


def main() -> None:
    """Do the task on standard input; what goes wrong is told as a short code."""
    os.umask(0o077)
    # A core dump would hold the images.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    def say(said: dict[str, Any]) -> None:
        answers.write(json.dumps(said) + "\n")
        answers.flush()

    task = json.loads(sys.stdin.buffer.readline())
    stopped = threading.Event()
    threading.Thread(
        target=_listen, args=(sys.stdin.buffer, stopped), daemon=True
    ).start()
    # What Python and its libraries have mapped before the node begins is not counted.
    limit = task["memory_bytes"] + _data_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    code, detail = _done(task, say, stopped)
    say(
        {"kind": "failed", "code": code, "detail": detail} if code else {"kind": "done"}
    )
    # A node's threads may run on; nobody waits for them.
    answers.flush()
    os._exit(0)


# Any: the task as JSON
def _done(task: dict[str, Any], say: Say, stopped: threading.Event) -> tuple[str, str]:
    """Why it failed, or two empty texts."""
    try:
        _run(task, say, stopped)
    except Cancelled:
        return "cancelled", ""
    except MemoryError:
        return "memory", ""
    except BadGeometry as err:
        return "geometry", str(err)
    except BadInputs as err:
        # Of parameters, which come from the template: it tells nothing of a patient.
        return "input", str(err)
    except NodeError as err:
        return "node", str(err)
    except Exception as err:
        # The boundary of a process that runs somebody's code: only the class is told.
        return "engine", type(err).__name__
    return "", ""


def _listen(commands: BinaryIO, stopped: threading.Event) -> None:
    """A line means stop; the end means that the worker is gone."""
    if commands.readline():
        stopped.set()
        commands.readline()
    os._exit(3)


def _data_bytes() -> int:
    """Bytes of memory that this process has mapped for data by now."""
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    return pages * resource.getpagesize()


def _run(task: dict[str, Any], say: Say, stopped: threading.Event) -> None:
    node: Node[..., Any] = find(task["engine"])
    say({"kind": "progress", "share": 0.02})
    images = [pydicom.dcmread(path) for path in task["images"]]
    geometry = series_geometry(images)
    scan = volume(images)
    for image in images:
        del image.PixelData
    ordered = in_order(images)
    say({"kind": "progress", "share": 0.1})

    def progress(share: float, _text: str) -> None:
        say({"kind": "progress", "share": 0.1 + 0.8 * share})

    context = Context(progress, stopped.is_set)
    outputs = node.run({_input_of(node): scan}, task["parameters"], context)
    context.check()
    drawn = drawn_of(outputs, scan, task["wanted"], f"{node.name} {node.version}")
    made = structure_set(
        drawn,
        ordered,
        geometry,
        label=node.title,
        series_description=f"AI generated: {node.title}",
        made_at=datetime.fromisoformat(task["made_at"]),
        uids=uids_of(task, str(ordered[0].SeriesInstanceUID), node),
    )
    context.check()
    _write(made, Path(task["result"]))


def _input_of(node: Node[..., Any]) -> str:
    """The input that takes the scan; NodeError where the node takes none."""
    found = [name for name, port in node.inputs.items() if port.kind == "volume"]
    others = [
        name
        for name, port in node.inputs.items()
        if name not in found and not port.optional
    ]
    labels = [name for name, port in node.outputs.items() if port.kind == "labels"]
    if len(found) != 1 or others or not labels:
        raise NodeError(
            f"{node.name} is no engine: that is a node which takes one Volume and "
            "gives Labels."
        )
    return found[0]


def drawn_of(
    outputs: Outputs, scan: Volume, wanted: Sequence[str], algorithm: str
) -> list[Drawn]:
    """The structures of all label masks; of `wanted` only, where it names any."""
    chosen = {name.casefold() for name in wanted}
    drawn: list[Drawn] = []
    for name, number, labels in _named(outputs):
        if chosen and name.casefold() not in chosen:
            continue
        mask = labels.array == number
        if mask.shape != scan.array.shape:
            raise NodeError(
                f"{name} has the shape {mask.shape}, and the scan {scan.array.shape}: "
                "an engine gives its labels on the scan's own voxels."
            )
        drawn.append(
            Drawn(
                name,
                mask,
                _colour(labels.colours.get(number), len(drawn)),
                "EXTERNAL" if name.casefold() in _EXTERNAL else "ORGAN",
                algorithm,
            )
        )
    return drawn


def _named(outputs: Outputs) -> Iterator[tuple[str, int, Labels]]:
    for value in outputs.of_kind("labels").values():
        for labels in value if isinstance(value, tuple) else (value,):
            for number, name in labels.names.items():
                yield name, number, labels


def _colour(css: str | None, at: int) -> tuple[int, int, int]:
    found = _HEX.fullmatch(css or "")
    if found is None:
        return PALETTE[at % len(PALETTE)]
    red, green, blue = (int(part, 16) for part in found.groups())
    return red, green, blue


def uids_of(
    task: dict[str, Any], series_uid: str, node: Node[..., Any]
) -> dict[str, str]:
    """The same UIDs each time for the same job, series, engine and parameters."""
    said = json.dumps(
        [task["job"], series_uid, node.name, node.version, task["parameters"]],
        sort_keys=True,
    )
    return {
        keyword: f"2.25.{int.from_bytes(hashed[:16], 'big')}"
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID")
        for hashed in [hashlib.sha256(f"{keyword}\0{said}".encode()).digest()]
    }


def _write(made: Dataset, target: Path) -> None:
    staged = target.with_name(f".{target.name}.partial")
    with staged.open("wb") as file:
        made.save_as(file, enforce_file_format=True)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


if __name__ == "__main__":
    main()
