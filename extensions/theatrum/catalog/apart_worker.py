"""The process that reads images for a service; see `apart`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from theatrum.catalog.apart import block, described
from theatrum.catalog.arrays import open_scene
from theatrum.catalog.errors import CatalogError, Gone
from tile_server.limited import Answer, serve


def main(arguments: list[str]) -> int:
    """Answer questions until the input ends."""
    return serve(int(arguments[0]), _answer)


# Any: JSON
def _answer(question: dict[str, Any]) -> Answer:
    name = Path(question["path"]).name
    try:
        scene = open_scene(question["path"], question["scene"])
        if question["do"] == "describe":
            return described(scene)
        return block(scene.levels, question["level"], question["ranges"])
    except CatalogError as error:
        kind = "Gone" if isinstance(error, Gone) else "NotOpened"
        return Answer({"refusal": str(error), "kind": kind})
    except MemoryError:
        return Answer({"refusal": f"{name} needs too much memory to be read."})
    except Exception as error:
        # The boundary of the process: what no reader foresaw is a file it cannot read.
        said = f"{name} cannot be read ({type(error).__name__})."
        return Answer({"refusal": said})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
