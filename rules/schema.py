"""The rule file as a JSON Schema, for editors and for checking a file before it is deployed.

Written from the same lists the reader uses; `rules/schema.json` is this, and a test keeps it so. The reader decides:
it also compiles patterns and counts digits.
"""

import json
from typing import Any, Final

from rules.expectations.kinds import KINDS
from rules.expectations.time_windows import DAYS
from rules.facts import SourceForm
from rules.pattern import MAX_PATTERN
from rules.rule import WORDS, RuleSeverity
from rules.selection import CLAIM_FIELDS
from settings.reading import MAX_TEXT

_TEXT: Final[dict[str, Any]] = {"type": ["string", "number"], "minLength": 1, "maxLength": MAX_TEXT}
_ID: Final[dict[str, Any]] = {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,99}$"}
_CHANNEL: Final[dict[str, Any]] = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"}
_CLOCK: Final[dict[str, Any]] = {"type": "string", "pattern": "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"}
_TIME: Final[dict[str, Any]] = {"type": "string", "format": "date-time"}
_CONDITIONS: Final[dict[str, Any]] = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/select"}}


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a rule file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Signwatch rules",
        **_mapping(
            {"version": {"const": 1}, "rules": {"type": "array", "items": {"$ref": "#/$defs/rule"}}}, "version", "rules"
        ),
        "$defs": {
            "rule": _rule(),
            "select": _select(),
            "expect": _mapping({kind.key: dict(kind.schema) for kind in KINDS}),
            "pattern": _pattern(),
            "patterns": _one_or_many({"$ref": "#/$defs/pattern"}),
            "digest": {"type": "string", "pattern": "^([A-Za-z0-9]+:)?[0-9A-Fa-f]{40,128}$"},
            "digests": _one_or_many({"$ref": "#/$defs/digest"}),
            "images": _one_or_many({"type": "string", "pattern": "^.+@sha256:[0-9a-f]{64}$", "maxLength": MAX_TEXT}),
            "duration": {"type": "string", "pattern": "^[1-9][0-9]{0,5}[smhdw]$"},
            "digestSource": _digest_source(),
            "authorisation": _authorisation(),
            "timeWindows": _one_or_many(_time_window()),
            "rate": _mapping(
                {"at_most": {"type": "integer", "minimum": 0}, "per": {"$ref": "#/$defs/duration"}}, "at_most", "per"
            ),
        },
    }


def schema_text() -> str:
    """The text of `rules/schema.json`."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _mapping(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, "required": list(required)} if required else made


def _one_or_many(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "minItems": 1, "items": item}]}


def _rule() -> dict[str, Any]:
    return _mapping(
        {
            "id": _ID,
            "title": _TEXT,
            "select": {"$ref": "#/$defs/select"},
            "expect": {"$ref": "#/$defs/expect"},
            "notify": _one_or_many(_CHANNEL),
            "severity": {"enum": [severity.value for severity in RuleSeverity]},
            "backscan": {"anyOf": [{"enum": list(WORDS)}, {"type": "integer", "minimum": 1, "maximum": 999_999_999}]},
        },
        "id",
        "select",
    )


def _select() -> dict[str, Any]:
    patterns = {"$ref": "#/$defs/patterns"}
    properties: dict[str, Any] = dict.fromkeys(("identity", "issuer", "kind", "log", *CLAIM_FIELDS), patterns)
    properties["fingerprint"] = _one_or_many({"type": "string", "minLength": 40})
    properties["digest"] = {"$ref": "#/$defs/digests"}
    oids = {"type": "object", "patternProperties": {r"^[0-2](\.[0-9]+)+$": patterns}, "additionalProperties": False}
    properties |= {"oid": oids, "all": _CONDITIONS, "any": _CONDITIONS, "not": {"$ref": "#/$defs/select"}}
    return {**_mapping(properties), "minProperties": 1}


def _pattern() -> dict[str, Any]:
    text, flag = {**_TEXT, "maxLength": MAX_PATTERN}, {"type": "boolean"}
    forms = [_mapping({form: text, "ignore_case": flag}, form) for form in ("exact", "glob", "regex")]
    return {"anyOf": [_TEXT, *forms]}


def _digest_source() -> dict[str, Any]:
    return {"anyOf": [_mapping({form.value: _TEXT}, form.value) for form in SourceForm]}


def _authorisation() -> dict[str, Any]:
    digest, count = {"$ref": "#/$defs/digest"}, {"type": "integer", "minimum": 1}
    return _mapping({"digest": digest, "count": count, "expires": _TIME, "note": _TEXT}, "digest", "expires")


def _time_window() -> dict[str, Any]:
    offset = {"type": "string", "pattern": "^[+-](0[0-9]|1[0-4]):[0-5][0-9]$"}
    days = _one_or_many({"enum": list(DAYS)})
    return _mapping(
        {"days": days, "from": _CLOCK, "to": _CLOCK, "utc_offset": offset, "not_before": _TIME, "not_after": _TIME}
    )
