"""The fast lane: stored tiles over a small HTTP listener of its own.

After pass-through a tile costs a microsecond of reading and some hundred and fifty of
Tornado. The lane is an `asyncio.Protocol` on httptools' parser, in the same process and
loop as the Tornado application: it answers what needs nothing but one read, and hands
every other request to the application (`handover`), so that its port gives the same
answers as the application's own.
"""

from tile_server.lane.limits import Limits
from tile_server.lane.listener import Lane

__all__ = ["Lane", "Limits"]
