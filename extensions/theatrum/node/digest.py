"""The digest of a node's code: the same code, the same digest, on any machine.

It is the hash of the source of the function's module, and of the modules of the same
package that it uses, as far as they can be reached from its names. So a node whose
helper was changed has another digest. A function of a notebook has no module to read:
there, its own source counts, without what other cells define.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def code_digest(function: Callable[..., Any]) -> str:
    """Return the SHA-256 of a function's source, as hexadecimal digits."""
    module = sys.modules.get(function.__module__)
    sources = {}
    if module is not None and getattr(module, "__file__", None):
        sources = _sources(module)
    if not sources:
        sources = {function.__qualname__: _own(function)}
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(f"{name}\0{sources[name]}\0".encode())
    digest.update(function.__qualname__.encode())
    return digest.hexdigest()


def _sources(start: ModuleType) -> dict[str, str]:
    package = start.__name__.rpartition(".")[0]
    found: dict[str, str] = {}
    waiting = [start]
    while waiting:
        module = waiting.pop()
        # `__main__` is another name for the same file when it is run as a script.
        name = "" if module is start else module.__name__
        if name in found:
            continue
        try:
            found[name] = inspect.getsource(module)
        except (OSError, TypeError):  # a notebook, a compiled module
            continue
        for value in vars(module).values():
            used = (
                value
                if isinstance(value, ModuleType)
                else sys.modules.get(getattr(value, "__module__", None) or "")
            )
            if used and used is not start and _within(used.__name__, package):
                waiting.append(used)
    return found


def _within(name: str, package: str) -> bool:
    return bool(package) and name.startswith(f"{package}.")


def _own(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        # Typed into a plain interpreter: what it was compiled to is all there is.
        return repr((function.__code__.co_code, function.__code__.co_consts))
