"""The loopback ports of an installation."""

from __future__ import annotations

import socket
from pathlib import Path

from hub.ports import is_free, kept_ports


def test_each_name_gets_a_free_port_of_its_own(tmp_path: Path) -> None:
    ports = kept_ports(tmp_path / "ports.json", ["hub", "proxy", "tiles"])
    assert len(set(ports.values())) == 3
    assert all(is_free(port) for port in ports.values())


def test_ports_are_the_same_at_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    assert kept_ports(file, ["hub", "tiles"]) == kept_ports(file, ["hub", "tiles"])


def test_a_new_service_leaves_the_ports_of_the_others(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = kept_ports(file, ["hub"])
    assert kept_ports(file, ["hub", "course"])["hub"] == first["hub"]


def test_a_port_that_another_program_took_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    ports = kept_ports(file, ["hub", "tiles"])
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports["hub"]))
        other.listen()
        again = kept_ports(file, ["hub", "tiles"])
    assert again["hub"] != ports["hub"]
    assert again["tiles"] == ports["tiles"]
