"""What one connection, and all of them together, may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a lane.

    Attributes
    ----------
    head_bytes
        Longest request line and headers together. More lets larger cookies through;
        each connection can hold as much memory.
    headers
        Most header lines of one request.
    head_s
        How long a request may take to arrive. Longer is kinder to bad links; shorter
        frees connections that a hostile client holds.
    idle_s
        How long a connection may stay without a request. Longer spares a browser that
        looks at a tile for a minute the opening of new ones.
    write_s
        How long a client may take to read what lies in the buffer (64 KB).
    answer_s
        How long the work of one answer may take, waiting for a turn included.
    linger_s
        How long a refused client may go on sending before it is cut off.
    connections
        Most at once; further ones are told to come again.
    """

    head_bytes: int = 16 * 2**10
    headers: int = 100
    head_s: float = 10.0
    idle_s: float = 75.0
    write_s: float = 30.0
    answer_s: float = 60.0
    linger_s: float = 2.0
    connections: int = 2048
