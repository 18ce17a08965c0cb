"""The shapes of every body, in Python; the JSON schemas are written from here.

    python -m tests.pathology_server.schemas

writes `ia_api.schema.json` (draft 2020-12, everything under `$defs`) for whoever tests
an application in another language. Fields that nobody knows are allowed on purpose: the
real server may add some. The lenient variant leaves out what only the strict mode of
the server asks for.
"""

from __future__ import annotations

from typing import Any

# A JSON schema: its depth is its own business.
Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
POSITIVE: Schema = {"type": "integer", "minimum": 1}
ABOVE_ZERO: Schema = {"type": "number", "exclusiveMinimum": 0}
FREE: Schema = {"type": "object"}


PHI_FIELDS = (
    "accessionNumber",
    "accessionNumberIssuer",
    "studyInstanceUid",
    "seriesInstanceUid",
    "examId",
    "examDateTime",
    "examFreeFields",
    "lisSlideId",
)
"""Only told with `includePHI=true`; never in a notification."""


def either_null(schema: Schema) -> Schema:
    """The same, or null."""
    named = schema.get("type")
    if isinstance(named, str) and "enum" not in schema:
        return {**schema, "type": [named, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def listed(items: Schema, at_least: int = 0, at_most: int | None = None) -> Schema:
    made: Schema = {"type": "array", "items": items}
    if at_least:
        made["minItems"] = at_least
    if at_most is not None:
        made["maxItems"] = at_most
    return made


def fields(required: dict[str, Schema], **optional: Schema) -> Schema:
    """An object with these fields; any other field may be there too."""
    made: Schema = {"type": "object", "properties": {**required, **optional}}
    if required:
        made["required"] = list(required)
    return made


def ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def without(schema: Schema, *names: str) -> Schema:
    """The same, where none of these fields may stand."""
    return {
        "allOf": [schema],
        "not": {"anyOf": [{"required": [name]} for name in names]},
    }


def definitions(*, strict: bool = True) -> dict[str, Schema]:
    """Every shape by its name."""
    return {
        **_geometry(),
        **_slides(),
        **_results(most_tags=5 if strict else None),
        **_invocations(),
        **_addresses(),
    }


def document(*, strict: bool = True) -> Schema:
    """The whole schema document; name one of its `$defs` to check a body."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "ia_api.schema.json",
        "title": "Bodies of the image analysis API, both directions",
        "$defs": definitions(strict=strict),
    }


def _geometry() -> dict[str, Schema]:
    points = {"points": listed(ref("Point"), at_least=3)}
    return {
        "Point": {
            **fields({"x": NUMBER, "y": NUMBER}),
            "description": "Both axes divided by the WIDTH of the full slide.",
        },
        "Polygon": fields(points),
        "Polyline": fields({"points": listed(ref("Point"), at_least=2)}),
        "Arc": fields(
            {
                "center": ref("Point"),
                "radius": ABOVE_ZERO,
                "startAngle": NUMBER,
                "endAngle": NUMBER,
            }
        ),
        "Label": fields({"location": ref("Point"), "label": TEXT}),
        "Size": fields({"width": POSITIVE, "height": POSITIVE}),
    }


def _slides() -> dict[str, Schema]:
    text = either_null(TEXT)
    tile_format = fields({"mimeType": TEXT, "extension": TEXT})
    displayed = fields({"displayName": TEXT})
    specimen = either_null(fields({}, anatomy=text, description=text))
    quality = fields(
        {
            "status": {"enum": ["NotSet", "QualityOk", "Rejected"]},
            "versionId": TEXT,
        }
    )
    extended = ("bodyPart", "examCode", "examDescription", "stationName")
    texts = (*extended, *(name for name in PHI_FIELDS if name != "examFreeFields"))
    slide = fields(
        {
            "id": NAME,
            "isStreamable": {"type": "boolean"},
            "imageSize": ref("Size"),
            "tileSize": ref("Size"),
            "micronsPerPixel": ABOVE_ZERO,
            "focalPlanes": listed(fields({"id": TEXT, "offsetUm": NUMBER})),
            "opticalPaths": listed(fields({"id": TEXT}, description=text)),
            "storedTileFormat": tile_format,
            "availableTileFormats": listed(tile_format),
            "fileFormat": fields({"mimeType": TEXT}),
            "staining": displayed,
            "block": displayed,
        },
        specimen=specimen,
        qualityControl={"anyOf": [quality, {"type": "null"}]},
        priority=either_null(WHOLE),
        examFreeFields=either_null(
            listed({"type": "object", "additionalProperties": text})
        ),
        **dict.fromkeys(texts, text),
    )
    entry = fields(
        {"id": NAME, "staining": displayed, "block": displayed},
        specimen=specimen,
        seriesInstanceUid=text,
        lisSlideId=text,
    )
    return {
        "SlideInfo": slide,
        "SlideInfoWithoutPhi": without(ref("SlideInfo"), *PHI_FIELDS),
        "CaseInfo": listed(entry),
        "QualityControlUpdate": fields(
            {"applicationVersion": NAME, "qualityControl": quality}
        ),
    }


def _results(most_tags: int | None) -> dict[str, Schema]:
    text = either_null(TEXT)
    colour = {
        "type": ["string", "null"],
        "pattern": "^#([0-9A-Fa-f]{6}|[0-9A-Fa-f]{8})$",
    }
    stroke = {**either_null(WHOLE), "minimum": 0}
    style = fields({}, strokeStyle=colour, fillStyle=colour, size=stroke)
    item = fields(
        {},
        style={"anyOf": [style, {"type": "null"}]},
        polygons=either_null(listed(ref("Polygon"))),
        polylines=either_null(listed(ref("Polyline"))),
        arcs=either_null(listed(ref("Arc"))),
        labels=either_null(listed(ref("Label"))),
    )
    patch = fields(
        {
            "tag": {"type": "integer", "minimum": 0},
            "position": ref("Point"),
            "sortKeyValue": NUMBER,
        }
    )
    action = fields({"id": NAME, "state": {"enum": [0, 1]}, "name": TEXT}, tooltip=text)
    status = fields({}, value={"type": ["boolean", "null"]}, message=text)
    gallery = fields(
        {
            "description": TEXT,
            "polygons": listed(ref("Polygon")),
            "patches": listed(patch),
            "tags": listed(TEXT, at_least=1, at_most=most_tags),
            "patchSize": POSITIVE,
            "magnification": ABOVE_ZERO,
            "statuses": {"type": "object", "additionalProperties": status},
        },
        actions=either_null(listed(action)),
    )
    contents = {
        "if": {"properties": {"type": {"const": "primitive"}}},
        "then": {
            "properties": {
                "content": {
                    "if": {"type": "array"},
                    "then": listed(ref("PrimitiveItem")),
                    "else": ref("PrimitiveItem"),
                }
            }
        },
        "else": {"properties": {"content": ref("Gallery")}},
    }
    shown = fields({"type": {"enum": ["primitive", "patchCollection"]}, "content": {}})
    attachment = fields(
        {"name": NAME, "state": {"enum": ["new", "upload-in-progress", "stored"]}}
    )
    data = fields({"result": {**shown, **contents}}, context=either_null(FREE))
    result = fields(
        {"slideId": NAME, "data": data},
        displayResult=text,
        displayProperties={
            "type": ["object", "null"],
            "additionalProperties": {"type": ["string", "number"]},
        },
        applicationVersion=text,
        attachments=either_null(listed(attachment)),
    )
    new = without(ref("Result"), "id", "versionId")
    return {
        "PrimitiveItem": item,
        "Gallery": gallery,
        "Result": result,
        "NewResult": {**new, "required": ["displayResult"]},
        "TransientResult": ref("NewResult"),
        "UpdateResult": {
            "allOf": [ref("Result"), fields({"versionId": NAME}, id=WHOLE)]
        },
        "StoredResult": {
            "allOf": [ref("Result"), fields({"id": WHOLE, "versionId": NAME})]
        },
    }


def _invocations() -> dict[str, Schema]:
    callback = fields({"url": {**TEXT, "pattern": "^https?://"}, "token": NAME})
    common = {"applicationId": NAME, "slideId": NAME, "callbackInfo": callback}
    extra = {"context": either_null(FREE), "cancellationToken": either_null(TEXT)}

    def action(name: str, **more: Schema) -> Schema:
        return fields({"action": {"const": name}, **common, **more}, **extra)

    area = fields(
        {"polygon": ref("Polygon")},
        tags=either_null(listed(TEXT)),
        tagIndex=either_null(WHOLE),
    )
    kinds = ("Create", "Modify", "Delete", "Cancel", "ImageNotification")
    return {
        "Input": {
            "oneOf": [
                fields(
                    {"type": {"const": "wholeSlide"}},
                    content={"type": ["object", "null"]},
                ),
                fields({"type": {"const": "taggedPolygon"}, "content": area}),
                fields(
                    {
                        "type": {"const": "multiArea"},
                        "content": fields(
                            {"polygons": listed(ref("Polygon"), at_least=1)}
                        ),
                    }
                ),
            ]
        },
        "Create": action("create", input=ref("Input")),
        "Modify": action("modify", input=ref("StoredResult")),
        "Delete": action("delete", input=ref("StoredResult")),
        "Cancel": action("cancel"),
        "ImageNotification": fields(
            {**common, "imageInfo": ref("SlideInfoWithoutPhi")},
            action={"const": "newImageFiles"},
            input={"anyOf": [ref("Input"), {"type": "null"}]},
            **extra,
        ),
        "Invocation": {"oneOf": [ref(name) for name in kinds]},
    }


def _addresses() -> dict[str, Schema]:
    template = {
        **fields({"type": {"enum": ["wholeSlide", "taggedPolygon", "multiArea"]}}),
        "if": fields({"type": {"const": "taggedPolygon"}}),
        "then": fields({"content": fields({"tags": listed(TEXT)})}),
        "else": {"not": {"required": ["content"]}},
    }
    slide = fields({"id": TEXT}, description=either_null(TEXT))
    return {
        "Registration": fields(
            {
                "applicationId": {**TEXT, "pattern": "^[A-Za-z0-9._-]+$"},
                "displayName": NAME,
                "manufacturer": NAME,
                "url": {**TEXT, "pattern": "^https?://[^ ]+$"},
                "inputTemplate": template,
            },
            context=FREE,
        ),
        "Info": fields(
            {
                "apiVersion": {**TEXT, "pattern": "^[0-9]+\\.[0-9]+$"},
                "softwareVersion": NAME,
            }
        ),
        "Token": fields(
            {"access_token": NAME, "token_type": TEXT, "expires_in": POSITIVE}
        ),
        "LaunchData": fields(
            {
                "callbackInfo": fields(
                    {"url": {**TEXT, "pattern": "^https?://"}, "token": NAME}
                ),
                "blocks": listed(fields({"name": TEXT, "slides": listed(slide)})),
            }
        ),
    }
