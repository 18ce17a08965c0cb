"""The process that opens files before the service does; see `probing`."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

from tile_server.errors import TileServerError
from tile_server.limited import Answer, serve
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.readers.imports import Imports
from tile_server.regions import thumbnail
from tile_server.view import describe


def main(arguments: list[str]) -> int:
    """Answer questions until the input ends."""
    imports = Imports(Path(arguments[1])) if len(arguments) > 1 else None
    return serve(int(arguments[0]), lambda question: Answer(_answer(question, imports)))


def _answer(question: dict[str, Any], imports: Imports | None) -> dict[str, Any]:
    path = Path(question["path"])
    try:
        with open_slide(path, imports=imports) as reader:
            if "thumbnail" in question:
                jpeg = thumbnail(Pyramid(reader), question["thumbnail"])
                return {"thumbnail": base64.b64encode(jpeg).decode()}
            return {
                "view": describe(reader),
                "series": reader.facts.series,
                "associated": reader.facts.associated,
            }
    except TileServerError as error:
        return {"refusal": str(error)}
    except MemoryError:
        return {"refusal": f"{path.name} needs too much memory to open."}
    except Exception as error:
        # The boundary of the process: what no reader foresaw is a file it cannot read.
        return {"refusal": f"{path.name} cannot be read ({type(error).__name__})."}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
