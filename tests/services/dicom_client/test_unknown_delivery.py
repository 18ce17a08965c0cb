"""A worker that dies between what it sent and the node's answer: nobody knows.

Nothing is sent a second time until a person says that the node does not have it.
(Nodes that can be asked, and the setting that sends again, are in test_delivery.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .client_site import Site, patient_series, wait
from .client_site import running_site as running
from .test_delivery import peer
from .test_pages import Visitor

SETTINGS: dict[str, Any] = {
    "lease_s": 2.0,
    "beside_images": False,
    "deliver_folder": None,
}


class Killer:
    """Kills the site's newest worker before it hears the first answer."""

    def __init__(self) -> None:
        self.site: Site | None = None
        self.worker: Any = None

    def __call__(self, _event: Any) -> int:
        if self.worker is not None and self.site is not None:
            victim, self.worker = self.worker, None
            self.site.kill(victim)
        return 0


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Callable[[], tuple[Site, list[str]]]]:
    """A site whose worker was killed while a node held back its answer."""
    killer = Killer()
    with peer(killer, title="TPS") as (port, got):
        made: list[Any] = []

        def run() -> tuple[Site, list[str]]:
            block = running(tmp_path, workers=0, **SETTINGS)
            site = block.__enter__()
            made.append(block)
            site.server.script(polls=0)
            node = {"name": "tps", "host": "127.0.0.1", "port": port, "ae_title": "TPS"}
            site.ask("PUT", "nodes", json=[node])
            killer.site, killer.worker = site, site.worker()
            site.drop(patient_series())
            wait(lambda: killer.worker is None, "the worker is killed")
            site.worker()
            return site, got

        try:
            yield run
        finally:
            for block in made:
                block.__exit__(None, None, None)


def test_a_person_marks_a_delivery_as_done_and_nothing_is_sent_twice(
    killed: Callable[[], tuple[Site, list[str]]],
) -> None:
    site, got = killed()
    job = site.wait_stopped("delivery-unknown")
    assert (job["state"], job["actions"][0]) == ("reidentified", "delivery")
    assert len(got) == 1
    assert site.server.count("confirm") == 0
    refused = site.call("POST", f"series/{job['id']}/retry")
    assert (refused.status_code, "look there" in refused.text) == (409, True)
    other = {"target": "elsewhere", "delivered": True}
    answer = site.call("POST", f"series/{job['id']}/delivery", json=other)
    assert answer.status_code == 409

    token = (site.home / "dicom_client" / "access-token").read_text()
    with httpx.Client(base_url=site.url, follow_redirects=True, timeout=60) as http:
        http.post("/login", data={"token": token})
        visitor = Visitor(http)
        page = visitor.get(f"/series/{job['id']}")
        assert "Mark as delivered" in page
        assert "Send it again" in page
        kept = {"target": "tps", "delivered": "yes"}
        visitor.send(f"/series/{job['id']}/delivery", kept)
    done = site.detail(site.wait_state("done")["id"])
    assert len(got) == 1
    assert site.server.count("confirm") == 1
    (delivery,) = done["deliveries"]
    assert (delivery["code"], bool(delivery["delivered"])) == ("already_there", True)
    assert "delivery-found" in [one["kind"] for one in done["timeline"]]
    (line,) = [
        one for one in site.ask("GET", "audit") if one["action"] == "delivery-found"
    ]
    assert line["job_id"] == job["id"]
    assert not re.search("Zwetschgen", str(line))


def test_a_person_has_it_sent_again(
    killed: Callable[[], tuple[Site, list[str]]],
) -> None:
    site, got = killed()
    job = site.wait_stopped("delivery-unknown")
    told = {"target": "tps", "delivered": False}
    site.ask("POST", f"series/{job['id']}/delivery", json=told)
    site.wait_state("done")
    assert len(got) == 2
    assert len(set(got)) == 1
    actions = [one["action"] for one in site.ask("GET", "audit")]
    assert "delivery-again" in actions
