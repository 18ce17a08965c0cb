"""Finding a node by its address: `package.module:name`, or `folder/file.py:name`.

A file is for a researcher's own node that is no package: it is run once, under a name
of its own, and imported from the file's folder it is not. What goes wrong is told in
the words of who wrote the address into a settings file.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from theatrum.node.definition import Node
from theatrum.node.errors import NoSuchNode


def find(address: str) -> Node[..., Any]:
    """Return the node at an address; raises NoSuchNode.

    A relative path is looked for from the folder of the process.
    """
    where, colon, name = address.strip().rpartition(":")
    if not (colon and where and name.isidentifier()):
        raise NoSuchNode(
            f"{address!r} is no address of a node: write module:name, as in "
            "theatrum.nodes:tissue_area, or file.py:name."
        )
    module = _from_file(Path(where)) if where.endswith(".py") else _imported(where)
    found = getattr(module, name, None)
    if isinstance(found, Node):
        return found
    known = sorted(
        known for known in dir(module) if isinstance(getattr(module, known, None), Node)
    )
    has = f"its nodes are {', '.join(known)}" if known else "it has no node at all"
    if found is None:
        raise NoSuchNode(f"{where} has no {name!r}; {has}.")
    raise NoSuchNode(
        f"{name!r} of {where} is no node but {type(found).__name__}; {has}. Write "
        "@node above the function."
    )


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise NoSuchNode(
                f"There is no module {error.name!r} here: check its spelling, or give "
                "the path of its file, as in nodes/mine.py:name."
            ) from error
        raise NoSuchNode(
            f"{name} needs {error.name!r}, which is not installed here."
        ) from error
    except Exception as error:  # whatever a module does while it is loaded
        raise NoSuchNode(_broken(name, error)) from error


def _from_file(path: Path) -> ModuleType:
    file = path.resolve()
    if not file.is_file():
        raise NoSuchNode(f"There is no file {path}.")
    # Its own name, the same in every process, so that a pickled value finds it again.
    mark = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    name = f"theatrum_node_file_{mark}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None  # noqa: S101  (the file exists and ends in .py; for mypy)
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    module.__theatrum_file__ = str(file)  # type: ignore[attr-defined]  # Node.address
    sys.modules[name] = module  # before it runs: its dataclasses look themselves up
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever somebody's file does while it is loaded
        del sys.modules[name]
        raise NoSuchNode(_broken(path.name, error)) from error
    return module


def _broken(name: str, error: Exception) -> str:
    return f"{name} cannot be loaded ({type(error).__name__}: {error})."
