"""large_image's own tile server, on loopback: `python large_image_app.py SLIDE PORT`.

Runs on the peers' own Python; prints the slide's metadata when it answers.
"""

import asyncio
import functools
import json
import sys

import large_image
import tornado.netutil
from large_image.tilesource.jupyter import launch_tile_server


async def main(slide: str, port: int) -> None:
    listen = tornado.netutil.bind_sockets
    # It would listen on every interface.
    tornado.netutil.bind_sockets = functools.partial(_on_loopback, listen)
    source = large_image.open(slide)
    launch_tile_server(source, port)
    found = {"levels": source.levels, "tile": source.tileWidth, "name": source.name}
    print(json.dumps(found), flush=True)
    await asyncio.Event().wait()


def _on_loopback(listen, port, _address):
    return listen(port, "127.0.0.1")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
