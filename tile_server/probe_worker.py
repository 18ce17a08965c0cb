"""The process that opens files before the service does; see `probing`.

It reads one JSON line per file from its standard input and writes one per answer. The
libraries may write to standard output as well, so the answers have a descriptor of
their own. It ends when its input does.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from tile_server.errors import TileServerError
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.readers.imports import Imports
from tile_server.regions import thumbnail
from tile_server.view import describe

try:
    resource: Any = import_module("resource")
except ImportError:  # Windows has no such limits; the limit of time remains
    resource = None

_PROCESSOR_S = 300


def main(arguments: list[str]) -> int:
    """Answer questions until the input ends."""
    _limit(int(arguments[0]))
    imports = Imports(Path(arguments[1])) if len(arguments) > 1 else None
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # The service says once what it chose; names of slides stay out of every log.
    logging.disable(logging.CRITICAL)
    # pydicom's quote values of a header, which can be a patient's.
    warnings.simplefilter("ignore")
    _write(answers, {"ready": True})
    for line in sys.stdin:
        _limit_processor_time()
        _write(answers, _answer(json.loads(line), imports))
    return 0


def _limit(memory_bytes: int) -> None:
    """Bound this process's memory, and keep slides out of core files."""
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, most))
    except (OSError, ValueError) as error:  # macOS refuses it
        sys.stderr.write(f"no limit of memory: {type(error).__name__}\n")


def _limit_processor_time() -> None:
    """A file that spins for ever must not outlive a service that was killed."""
    if resource is None:
        return
    spent = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(spent.ru_utime + spent.ru_stime) + _PROCESSOR_S
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    if most == resource.RLIM_INFINITY or soft < most:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, most))


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


def _write(descriptor: int, answer: dict[str, Any]) -> None:
    text = (json.dumps(answer) + "\n").encode()
    while text:
        text = text[os.write(descriptor, text) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
