"""The JSON Schema of a settings file, made from the classes that hold its values."""

import inspect
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from settings.models import Section, SettingsKey, Shape, Written, keys_of, models_of
from settings.reading import duration_text


def json_schema(model: type[Struct], title: str, more: Shape) -> dict[str, Any]:
    """JSON Schema (2020-12) of a file. `more` are properties without a field."""
    made = shape_of(model)
    below = sorted(models_of(model), key=lambda each: each.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "properties": {**more, **made["properties"]},
        "required": [*more, *made.get("required", ())],
        "title": title,
        "$defs": {each.__name__: shape_of(each) for each in below},
    }


def shape_of(model: type[Struct]) -> dict[str, Any]:
    """Shape of one mapping: its own keys and no other. Its sections are references to `$defs`."""
    keys = keys_of(model)
    needed = [each.key for each in keys if each.is_needed]
    return {
        "additionalProperties": False,
        "description": inspect.getdoc(model),
        "properties": {each.key: _property(each) for each in keys},
        **({"required": needed} if needed else {}),
        "title": model.__name__,
        "type": "object",
    }


def schema_text(schema: Shape) -> str:
    """A schema as the published text."""
    return json.dumps(schema, indent=2) + "\n"


def _property(key: SettingsKey) -> dict[str, Any]:
    if isinstance(key.mark, Written):
        shape = key.mark.shape
        return dict(shape() if callable(shape) else shape) | _default(key)
    reference = {"$ref": f"#/$defs/{key.section[0].__name__}"}
    return reference if isinstance(key.mark, Section) else {"items": reference, "type": "array"}


def _default(key: SettingsKey) -> dict[str, Any]:
    """The default in the form of the file, if it has one that does not only say that the key may be left out."""
    match key.default:
        case timedelta() as duration:
            return {"default": duration_text(duration)}
        case str() | int() | float() as value:
            return {"default": value}
        case Path() as path:
            return {"default": str(path)}
        case tuple() as values:
            return {"default": list(values)}
    return {}
