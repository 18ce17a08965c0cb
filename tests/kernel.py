"""Runs code in a kernel of a person's server, over the hub, without a browser."""

from __future__ import annotations

import json
import uuid

import httpx
import websocket

from tests.hub_process import RunningHub, wait_for


def start_server(client: httpx.Client, name: str) -> None:
    """Start a person's server and wait until it is there."""
    client.post(f"hub/api/users/{name}/server").raise_for_status()
    wait_for(
        client,
        f"hub/api/users/{name}",
        lambda user: user["servers"].get("", {}).get("ready"),
    )


def run(hub: RunningHub, client: httpx.Client, name: str, code: str) -> str:
    """What the code prints; an error in it is an error of the test."""
    made = client.post(f"user/{name}/api/kernels", json={"name": "python3"})
    made.raise_for_status()
    kernel = made.json()["id"]
    address = hub.url.replace("http", "ws", 1)
    channel = websocket.create_connection(
        f"{address}user/{name}/api/kernels/{kernel}/channels",
        header=[f"Authorization: {client.headers['Authorization']}"],
        timeout=60,
    )
    try:
        return _execute(channel, code)
    finally:
        channel.close()
        client.delete(f"user/{name}/api/kernels/{kernel}")


def _execute(channel: websocket.WebSocket, code: str) -> str:
    asked = uuid.uuid4().hex
    header = {
        "msg_id": asked,
        "msg_type": "execute_request",
        "session": uuid.uuid4().hex,
        "username": "",
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False}
    message = {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
    }
    channel.send(json.dumps(message))
    printed = ""
    while True:
        answer = json.loads(channel.recv())
        if answer["parent_header"].get("msg_id") != asked:
            continue
        kind, content = answer["header"]["msg_type"], answer["content"]
        if kind == "stream":
            printed += content["text"]
        if kind == "error":
            raise AssertionError(f"{content['ename']}: {content['evalue']}")
        if kind == "status" and content["execution_state"] == "idle":
            return printed
