"""What can go wrong with a node, as one tree."""

from __future__ import annotations


class NodeError(Exception):
    """Base of everything that this package raises."""


class BadNode(NodeError, TypeError):
    """The function cannot be a node: raised where it is decorated."""


class BadValue(NodeError, ValueError):
    """A value of a port is malformed: a polygon of two corners, a torn table."""


class BadInputs(NodeError, ValueError):
    """The inputs or parameters of a run do not fit; the text lists every problem."""


class BadOutputs(NodeError):
    """The function returned something else than its annotation says."""


class NoSuchNode(NodeError, LookupError):
    """No node is at the address; the text says which part of it is wrong."""


class Cancelled(NodeError):
    """Somebody stopped the run. Let it pass: the caller knows what to do."""
