"""Readers: one slide file each, behind one small protocol.

`open_slide` probes the file's content and picks the reader:

* `PassThroughReader` for TIFF files (Aperio SVS, Philips, generic TIFF) whose tiles are
  JPEG that a browser can show: such tiles leave the file undecoded;
* `TiledReader` for TIFF files whose tiles are decoded one by one;
* `OpenSlideReader` for all else that openslide reads; the others by their own modules.
"""

from tile_server.readers.choose import open_slide
from tile_server.readers.protocol import Level, Reader

__all__ = ["Level", "Reader", "open_slide"]
