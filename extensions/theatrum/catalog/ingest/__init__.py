"""Images come into the catalogue, from anywhere, or stay out with a reason.

from theatrum.catalog.ingest import Wishes, ingest

report = ingest(database, home, ["/data/study"], Wishes("study", actor="ann"))
report.counts    # {"taken": 40, "known": 0, "waiting": 0, "refused": 2}
"""

from theatrum.catalog.ingest.errors import (
    BadRule,
    BadUpload,
    HostileArchive,
    IngestError,
    NoSuchItem,
    SourceFailed,
)
from theatrum.catalog.ingest.pipeline import ingest
from theatrum.catalog.ingest.report import Entry, Report
from theatrum.catalog.ingest.wishes import Step, Wishes
from theatrum.catalog.ingest.workers import Workers

__all__ = [
    "BadRule",
    "BadUpload",
    "Entry",
    "HostileArchive",
    "IngestError",
    "NoSuchItem",
    "Report",
    "SourceFailed",
    "Step",
    "Wishes",
    "Workers",
    "ingest",
]
