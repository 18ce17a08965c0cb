"""Starting, stopping and being killed, as an administrator lives through it."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import httpx
import psutil
import pytest

from hub.leftovers import processes
from tests import kernel
from tests.browser import free_port
from tests.hub_process import RunningHub, running_hub, start, wait_until_ready

pytestmark = [pytest.mark.hub]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_takes_less_than_5_s_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running_hub(tmp_path / "home", "--no-demo") as hub:
        _start_server(hub, "researcher")
        before = [process for process, _ in processes(hub.home)]
        began = time.monotonic()
        hub.process.send_signal(number)
        hub.process.wait(20)
        spent_s = time.monotonic() - began
        left = list(processes(hub.home))
    assert len(before) > 5
    assert left == []
    assert spent_s < 5, f"{spent_s:.1f} s"


def test_a_killed_hub_finds_everything_as_it_was(tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    first = wait_until_ready(start(home, "--no-demo", port=port), home)
    _start_server(first, "researcher")
    with first.api("researcher") as researcher:
        _write_file(researcher, "kept")
        token = researcher.headers["Authorization"]
    passwords = first.passwords
    server = _server_pids(home)
    os.kill(first.hub_pid, signal.SIGKILL)
    assert first.process.wait(20) == 1

    second = wait_until_ready(start(home, "--no-demo", port=port), home)
    try:
        assert second.passwords == passwords
        # The same server goes on, and the old token still speaks for its owner.
        assert _server_pids(home) == server
        with httpx.Client(
            base_url=second.url, headers={"Authorization": token}, trust_env=False
        ) as researcher:
            kept = researcher.get("user/researcher/api/contents/kept.txt")
        assert kept.json()["content"] == "kept"
        expected = [
            "catalog",
            "catalog-worker-1",
            "courses",
            "idle-culler",
            "tiles",
            "voila",
        ]
        assert _service_names(home) == expected, "a service was left, or is missing"
    finally:
        second.stop()
    assert list(processes(home)) == []


def test_a_home_that_is_in_use_is_not_started_a_second_time(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running_hub(home, "--no-demo") as hub:
        second = start(home, "--no-demo")
        said, _ = second.communicate(timeout=60)
        with hub.sign_in("researcher") as researcher:
            assert researcher.get("services/catalog/").status_code == 200
    assert second.returncode == 1
    assert "is running already" in said


def test_a_hub_whose_starter_was_killed_is_replaced_and_servers_go_on(
    tmp_path: Path,
) -> None:
    home, port = tmp_path / "home", free_port()
    first = wait_until_ready(start(home, "--no-demo", port=port), home)
    _start_server(first, "researcher")
    server = _server_pids(home)
    first.process.kill()
    first.process.wait(20)
    second = wait_until_ready(start(home, "--no-demo", port=port), home)
    try:
        assert _server_pids(home) == server
    finally:
        second.stop()
    assert list(processes(home)) == []


def test_a_home_stays_in_the_mode_in_which_it_was_made(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mode").write_text("accounts 0")
    process = start(home, "--no-demo")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "was made as `accounts 0`" in said


def test_an_address_of_another_machine_is_told_as_such(tmp_path: Path) -> None:
    process = start(tmp_path / "home", "--no-demo", THEATRUM_BIND="192.0.2.1")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Nothing can listen on 192.0.2.1" in said


def test_a_taken_port_is_told_with_the_next_free_one(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = start(tmp_path / "home", "--no-demo", port=port)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"Port {port} is taken" in said
    assert "python3 run.py --port" in said


def test_a_wrong_setting_is_refused_at_the_start_with_its_name(tmp_path: Path) -> None:
    process = start(tmp_path / "home", "--no-demo", THEATRUM_MODE="open")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "THEATRUM_MODE is 'open'" in said
    assert "'demo' or 'accounts'" in said


def test_the_hub_works_under_another_path_and_with_the_python_proxy(
    tmp_path: Path,
) -> None:
    with running_hub(
        tmp_path / "home",
        "--no-demo",
        THEATRUM_BASE_URL="/teach/images/",
        THEATRUM_PROXY="python",
    ) as hub:
        assert hub.url.endswith("/teach/images/")
        with hub.sign_in("researcher") as researcher:
            page = researcher.get("services/catalog/")
        assert page.status_code == 200
        assert "no image that you may see yet" in page.text


def _start_server(hub: RunningHub, name: str) -> None:
    with hub.api(name) as client:
        kernel.start_server(client, name)


def _write_file(client: httpx.Client, text: str) -> None:
    answer = client.put(
        "user/researcher/api/contents/kept.txt",
        json={"type": "file", "format": "text", "content": text},
    )
    assert answer.status_code == 201, answer.text


def _server_pids(home: Path) -> list[int]:
    return sorted(process.pid for process, person in processes(home) if person)


def _service_names(home: Path) -> list[str]:
    """The services that run, one entry for each process that is not a child of one."""
    names = []
    for process, person in processes(home):
        if person or not _service_name(process):
            continue
        parent = process.parent()
        if parent is None or not _service_name(parent):
            names.append(_service_name(process))
    return sorted(names)


def _service_name(process: psutil.Process) -> str:
    try:
        return process.environ().get("JUPYTERHUB_SERVICE_NAME", "")
    except psutil.Error:
        return ""
