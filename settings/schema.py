"""The JSON Schema of a settings file, made from the dataclasses that hold its values."""

import json
from datetime import timedelta
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from settings.models import Section, Shape, annotated, keys_of, models_of
from settings.reading import duration_text


class _Shapes(GenerateJsonSchema):
    """Leaves out defaults that JSON cannot represent."""

    def encode_default(self, dft: Any) -> Any:
        """A default in the form of the file."""
        return duration_text(dft) if isinstance(dft, timedelta) else super().encode_default(dft)

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  pydantic's own attribute


def json_schema(model: type, section: Section, title: str, more: Shape) -> dict[str, Any]:
    """JSON Schema (2020-12) of a file. `more` are properties without a field."""
    made = shape_of(model, section)
    defs = made.pop("$defs", {})
    for each in models_of(model):
        if each.__name__ in defs:
            _close(defs[each.__name__], each)
    made["properties"] = {**more, **made["properties"]}
    made["required"] = [*more, *made.get("required", [])]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": title,
        **({"$defs": defs} if defs else {}),
    }


def shape_of(model: type, section: Section) -> dict[str, Any]:
    """Shape of one mapping, with `$defs` where there are sections in it."""
    made = TypeAdapter(annotated(model, section)).json_schema(schema_generator=_Shapes)
    _close(made, model)
    return made


def schema_text(schema: Shape) -> str:
    """A schema as the published text."""
    return json.dumps(schema, indent=2) + "\n"


def _close(shape: dict[str, Any], model: type) -> None:
    """Make an object's schema name the keys of the file, and allow no other."""
    keys = list(keys_of(model))
    shape["properties"] = {each.key: _written(shape["properties"][each.field]) for each in keys}
    needed = [each.key for each in keys if each.is_needed]
    shape.pop("required", None)
    if needed:
        shape["required"] = needed
    shape["additionalProperties"] = False


def _written(shape: dict[str, Any]) -> dict[str, Any]:
    """The shape without the null that only stands for a key that is left out."""
    kept = {key: value for key, value in shape.items() if key != "title" and not (key == "default" and value is None)}
    forms = [form for form in shape.get("anyOf", ()) if form != {"type": "null"}]
    if len(forms) == 1:
        return {**{key: value for key, value in kept.items() if key != "anyOf"}, **forms[0]}
    return {**kept, "anyOf": forms} if forms else kept
