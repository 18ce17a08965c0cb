"""Under which conditions something was measured, for the figures to be believed."""

from __future__ import annotations

import os


def conditions() -> dict[str, float]:
    """Cores, and how many programs wanted one in the last minute (1: one busy core).

    Asked before the measurement begins: what it says is what others do.
    """
    return {"cores": os.cpu_count() or 1, "load_before": round(os.getloadavg()[0], 1)}
