"""Write `ia_api.schema.json` anew from the definitions."""

from __future__ import annotations

import json

from . import SCHEMA_FILE, document

SCHEMA_FILE.write_text(json.dumps(document(), indent=2) + "\n")
print(f"wrote {SCHEMA_FILE.name}")
