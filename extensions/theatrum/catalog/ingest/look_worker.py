"""The process that opens what comes in; see `look`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from theatrum.catalog import zarr_store
from theatrum.catalog.errors import CatalogError
from theatrum.catalog.formats import Scene, open_scenes
from theatrum.catalog.ingest import archives
from theatrum.catalog.ingest.bare import bare
from theatrum.catalog.ingest.deid import Deidentification
from theatrum.catalog.ingest.describing import described
from theatrum.catalog.ingest.headers import identify
from theatrum.catalog.ingest.items import sniffed
from tile_server.limited import Answer, serve

_PICTURE_PX = 512


def main(arguments: list[str]) -> int:
    """Answer questions until the input ends."""
    opened = _Opened()
    return serve(int(arguments[0]), lambda asked: Answer(_answer(asked, opened)))


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


def _answer(question: dict[str, Any], opened: _Opened) -> dict[str, Any]:
    paths = [Path(one) for one in question["paths"]]
    name = paths[0].name if paths else ""
    try:
        match question["do"]:
            case "kinds":
                return {"kinds": sniffed(paths)}
            case "identify":
                return {"found": [asdict(one) for one in identify(paths)]}
            case "unpack":
                limits = archives.Limits(**question["limits"])
                archives.unpack(paths[0], Path(question["to"]), limits)
                return {}
            case "deidentify":
                return _given_out(question, paths)
            case "bare":
                made = bare(paths, question["format"], Path(question["to"]))
                return {"path": os.fspath(made.path), "format": made.format}
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


def _given_out(question: dict[str, Any], paths: list[Path]) -> dict[str, Any]:
    """What of a series may be given out, de-identified in a new folder."""
    worker = Deidentification(question["profile"], bytes.fromhex(question["key"]))
    given = worker.give_out(paths, Path(question["to"]))
    return {
        "files": [os.fspath(one) for one in given.files],
        "reasons": list(given.reasons),
    }


def _draw(scene: Scene, to: Path) -> None:
    """The middle plane of the coarsest level, as a small JPEG, whole or not at all."""
    from theatrum.catalog.arrays import labelled
    from theatrum.catalog.picture import draw

    picture = draw(labelled(scene, len(scene.levels) - 1)).convert("RGB")
    picture.thumbnail((_PICTURE_PX, _PICTURE_PX))
    staging = to.with_suffix(".partial")
    picture.save(staging, "JPEG", quality=85)
    staging.replace(to)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
