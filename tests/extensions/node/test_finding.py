"""Nodes found by their addresses, and what is told of an address that leads nowhere."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from theatrum.node import ArrayImage, NoSuchNode, find

SLIDE = ArrayImage(np.zeros((4, 7, 3), np.uint8))

OWN = '''
from dataclasses import dataclass
from theatrum.node import Image, node

@dataclass(frozen=True)
class Size:
    width: int

@node(version="1.0.0")
def size_of(image: Image) -> Size:
    """Tell the size."""
    return Size(image.width)

def plain(image): return 0
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "my_node.py"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "tissue_area",
        "ki67",
        "count_nuclei",
        "focus_map",
        "measure_areas",
        "ct_body_lungs_bone",
    ],
)
def test_every_node_that_ships_is_found_by_its_name(name: str) -> None:
    found = find(f"theatrum.nodes:{name}")
    assert found.name == name.replace("_", "-")
    assert found.summary
    assert found.address is not None
    assert find(found.address) is found


def test_a_node_in_a_file_is_found_run_and_pickled(own: Path) -> None:
    found = find(f"{own}:size_of")
    assert found.run({"image": SLIDE})["width"] == 7
    assert find(f"{own}:size_of") is found
    assert pickle.loads(pickle.dumps(found)) is found  # noqa: S301  (our own bytes)
    other = subprocess.run(
        [
            sys.executable,
            "-c",
            "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).name)",
        ],
        input=pickle.dumps(found),
        capture_output=True,
        check=True,
    )
    assert other.stdout.split() == [b"size-of"]


def test_a_relative_path_is_looked_for_from_the_process_s_folder(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own.parent)
    assert find("my_node.py:size_of").name == "size-of"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("tissue_area", "is no address"),
        ("theatrum.nodes:", "is no address"),
        (":tissue_area", "is no address"),
        ("theatrum.nodes:tissue area", "is no address"),
        ("theatrum.nodez:tissue_area", "no module 'theatrum.nodez'"),
        ("nowhere.at.all:x", "no module 'nowhere'"),
        ("absent.py:x", "no file absent.py"),
        ("theatrum.nodes:tissues", "no 'tissues'; its nodes are"),
        ("math:floor", "is no node but builtin_function_or_method"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_in_its_own_words(
    address: str, told: str
) -> None:
    with pytest.raises(NoSuchNode, match=told):
        find(address)


def test_a_function_without_the_decorator_is_told_with_the_nodes_beside_it(
    own: Path,
) -> None:
    with pytest.raises(NoSuchNode, match=r"its nodes are size_of\. Write @node"):
        find(f"{own}:plain")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def (", "SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("from theatrum.node import node\n@node\ndef f(x): ...", "no type hint"),
    ],
)
def test_a_file_that_cannot_be_loaded_says_why_and_may_be_mended(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(NoSuchNode, match=told):
        find(f"{path}:f")
    path.write_text(OWN)
    assert find(f"{path}:size_of").name == "size-of"
