"""Copies of slides that hold the pixels and their scale, and nothing else of the file.

What is kept is listed, and all else is left behind: a list of what to remove would miss
what a scanner's next version writes.
"""

from tile_server.deidentified.tiff import CannotCopy, Copied, copy_tiff, texts_of

__all__ = ["CannotCopy", "Copied", "copy_tiff", "texts_of"]
