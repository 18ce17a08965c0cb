"""A DRAW segmentation server for tests: strict, scriptable, on a real socket."""

from .scenario import Scenario
from .server import MODELS, DrawServer, Task

__all__ = ["MODELS", "DrawServer", "Scenario", "Task"]
