"""The digest of a node's code: it changes with the code, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NODE = '''
from theatrum.node import Image, node
from pack.helper import factor

@node
def scaled(image: Image) -> int:
    """Scale."""
    return image.width * factor()
'''
PRINT = "from pack.own import scaled; print(scaled.code_digest)"


def _digest(folder: Path, program: str = PRINT) -> str:
    told = subprocess.run(
        [sys.executable, "-B", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.strip()


def _write(folder: Path, node: str = NODE, helper: str = "2") -> None:
    pack = folder / "pack"
    pack.mkdir(exist_ok=True)
    (pack / "__init__.py").write_text("")
    (pack / "own.py").write_text(node)
    (pack / "helper.py").write_text(f"def factor(): return {helper}\n")


def test_the_same_code_has_the_same_digest_anywhere(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        _write(tmp_path / name)
    first, second = _digest(tmp_path / "one"), _digest(tmp_path / "two")
    assert first == second
    assert len(first) == 64


def test_the_digest_follows_the_node_and_the_helpers_of_its_package(
    tmp_path: Path,
) -> None:
    _write(tmp_path)
    before = _digest(tmp_path)
    _write(tmp_path, helper="3")
    helped = _digest(tmp_path)
    _write(tmp_path, NODE.replace("image.width", "image.height"))
    changed = _digest(tmp_path)
    _write(tmp_path)
    assert len({before, helped, changed}) == 3
    assert _digest(tmp_path) == before


def test_a_function_that_was_typed_in_has_a_digest_too(tmp_path: Path) -> None:
    typed = (
        "from theatrum.node import Image, node\n"
        "@node\ndef f(image: Image) -> int: return {}\n"
        "print(f.code_digest)"
    )
    digests = {_digest(tmp_path, typed.format(n)) for n in (1, 1, 2)}
    assert len(digests) == 2
