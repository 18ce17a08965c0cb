"""The process that opens what comes in; see `look`.

One JSON line a question on standard input, one a answer. The libraries may write to
standard output too, so answers have a descriptor of their own. It ends with its input.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from theatrum.catalog import zarr_store
from theatrum.catalog.errors import CatalogError
from theatrum.catalog.formats import Scene, open_scenes
from theatrum.catalog.ingest.describing import described
from theatrum.catalog.ingest.headers import identify

try:
    resource: Any = import_module("resource")
except ImportError:  # Windows has no such limits; the limit of time remains
    resource = None

_PICTURE_PX = 512


def main(arguments: list[str]) -> int:
    """Answer questions until the input ends."""
    _limit(int(arguments[0]))
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # What libraries log and warn of quotes headers, which can be a patient's.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    _write(answers, {"ready": True})
    opened = _Opened()
    for line in sys.stdin.buffer:
        question = json.loads(line.decode("utf-8", "surrogateescape"))
        _write(answers, _answer(question, opened))
    return 0


class _Opened:
    """The scenes of the item asked for last: a copy is asked for after its words."""

    def __init__(self) -> None:
        self._key: tuple[str, ...] = ()
        self._scenes: list[Scene] = []

    def scenes(self, question: dict[str, Any]) -> list[Scene]:
        key = (*question["paths"], question["format"])
        if key != self._key:
            paths = [Path(one) for one in question["paths"]]
            secret = bytes.fromhex(question.get("key", ""))
            self._scenes = open_scenes(paths, question["format"], key=secret)
            self._key = key
        return self._scenes


def _limit(memory_bytes: int) -> None:
    """Bound this process's memory, and keep images out of core files."""
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, most))
    except (OSError, ValueError) as error:  # macOS refuses it
        sys.stderr.write(f"no limit of memory: {type(error).__name__}\n")


def _answer(question: dict[str, Any], opened: _Opened) -> dict[str, Any]:
    name = Path(question["paths"][0]).name if question["paths"] else ""
    try:
        if question["do"] == "identify":
            paths = [Path(one) for one in question["paths"]]
            return {"found": [asdict(one) for one in identify(paths)]}
        scenes = opened.scenes(question)
        if question["do"] == "describe":
            folder = Path(question["planes"])
            return {"scenes": [described(one, folder) for one in scenes]}
        if question["do"] == "draw":
            _draw(scenes[0], Path(question["to"]))
            return {}
        scene = scenes[question["scene"]]
        written = zarr_store.write(
            scene.array, Path(question["to"]), zarr_store.describe(scene)
        )
        return {**asdict(written), "path": str(written.path)}
    except CatalogError as error:
        return {"refusal": str(error), "kind": type(error).__name__}
    except MemoryError:
        return {"refusal": f"{name} needs too much memory to be opened."}
    except Exception as error:
        # The boundary of the process: what no reader foresaw is a file it cannot read.
        return {"refusal": f"{name} cannot be read ({type(error).__name__})."}


def _draw(scene: Scene, to: Path) -> None:
    """The middle plane of the coarsest level, as a small JPEG, whole or not at all."""
    from theatrum.catalog.arrays import labelled
    from theatrum.catalog.picture import draw

    picture = draw(labelled(scene, len(scene.levels) - 1)).convert("RGB")
    picture.thumbnail((_PICTURE_PX, _PICTURE_PX))
    staging = to.with_suffix(".partial")
    picture.save(staging, "JPEG", quality=85)
    staging.replace(to)


def _write(descriptor: int, answer: dict[str, Any]) -> None:
    text = (json.dumps(answer, default=str) + "\n").encode("utf-8", "surrogateescape")
    while text:
        text = text[os.write(descriptor, text) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
