"""Run the server by hand, beside an application that is being written.

    python -m tests.pathology_server --port 8700 --case
    python -m tests.pathology_server --slide a.svs --create http://127.0.0.1:9000/app

It tells the callback address and a token, and every request as it comes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from . import PASSWORD, USER, PathologyServer, Viewer, case_scenario, slide_of_file
from .viewer import ProtocolViolation


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parser().parse_args(arguments)
    slides = [
        slide_of_file(f"sl-file-{number}", path)
        for number, path in enumerate(asked.slide, 1)
    ]
    if asked.case or not slides:
        slides += case_scenario()
    with PathologyServer(
        slides,
        api_version=asked.api_version,
        strict=not asked.lenient,
        conflict_status=asked.conflict_status,
        latency_s=asked.latency_ms / 1000,
        token_lifetime_s=asked.token_lifetime,
        port=asked.port,
        keep_requests=10_000,
    ) as server:
        print(f"callback address  {server.url}")
        print(f"slides            {', '.join(server.slides)}")
        print(f"token endpoint    user {USER}, password {PASSWORD}")
        if asked.application_id:
            server.add_application(asked.application_id, {})
            print(f"token             {server.tokens.issue(asked.application_id)}")
        if asked.create:
            _invoke(server, asked.create, slides[0].slide_id)
        _follow(server)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.pathology_server", description=__doc__
    )
    add = parser.add_argument
    add("--port", type=int, default=0, help="0 takes a free one")
    add("--api-version", default="1.10", help="1.5 to 1.10")
    add("--slide", type=Path, action="append", default=[], help="a slide's file")
    add("--case", action="store_true", help="the case with every kind of slide")
    add("--lenient", action="store_true", help="let pass what only strictness refuses")
    add("--conflict-status", type=int, default=409, help="of a stale version")
    add("--latency-ms", type=float, default=0, help="waited before every callback")
    add("--token-lifetime", type=float, default=3600, help="in seconds")
    add("--application-id", help="register it and tell a token")
    add("--create", metavar="APP_URL", help="register this application and invoke it")
    return parser


def _invoke(server: PathologyServer, app_url: str, slide_id: str) -> None:
    with Viewer(server, app_url) as viewer:
        try:
            print(f"registered        {viewer.register()['displayName']}")
            answer = viewer.create(slide_id)
        except ProtocolViolation as violation:
            print(f"VIOLATION         {violation}")
            return
        print(f"create            result {answer.result_id}, {answer.seconds:.3f} s")


def _follow(server: PathologyServer) -> None:
    """Tell the requests until the keyboard ends it."""
    told = 0
    try:
        while True:
            for one in server.record.of(since=told):
                print(one)
                told = one.number
            for text in server.warnings:
                print(f"WARNING           {text}")
            server.warnings.clear()
            time.sleep(0.2)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
