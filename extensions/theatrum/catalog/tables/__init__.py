"""The tables of the catalogue, the same on SQLite and PostgreSQL."""

from theatrum.catalog.tables.acquired import (
    Acquisition,
    InboxItem,
    SeriesMember,
    SourceFile,
)
from theatrum.catalog.tables.base import Base, new_id, now
from theatrum.catalog.tables.done import (
    RUN_STATES,
    Batch,
    DatasetVersion,
    Event,
    Flow,
    NodeDef,
    Run,
    RunEvent,
    RunInput,
    RunOutput,
    SavedQuery,
)
from theatrum.catalog.tables.finite import finite
from theatrum.catalog.tables.images import (
    Asset,
    Channel,
    Image,
    PlaneTable,
    Result,
    Transform,
    View,
)
from theatrum.catalog.tables.projects import ROLES, Project, ProjectGroup
from theatrum.catalog.tables.said import (
    Annotation,
    DataTable,
    Label,
    Measurement,
    Roi,
)
from theatrum.catalog.tables.studied import (
    CohortGroup,
    Experiment,
    FileRule,
    Sample,
    Subject,
    Visit,
)
from theatrum.catalog.tables.texts import ImageText

__all__ = [
    "ROLES",
    "RUN_STATES",
    "Acquisition",
    "Annotation",
    "Asset",
    "Base",
    "Batch",
    "Channel",
    "CohortGroup",
    "DataTable",
    "DatasetVersion",
    "Event",
    "Experiment",
    "FileRule",
    "Flow",
    "Image",
    "ImageText",
    "InboxItem",
    "Label",
    "Measurement",
    "NodeDef",
    "PlaneTable",
    "Project",
    "ProjectGroup",
    "Result",
    "Roi",
    "Run",
    "RunEvent",
    "RunInput",
    "RunOutput",
    "Sample",
    "SavedQuery",
    "SeriesMember",
    "SourceFile",
    "Subject",
    "Transform",
    "View",
    "Visit",
    "finite",
    "new_id",
    "now",
]
