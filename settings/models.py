"""From a YAML tree to frozen values: a dataclass says which keys a mapping has and how each is read.

Each field is annotated with `Written` (one value) or `Section` (a mapping with a dataclass of its own). pydantic reads
the values, `settings.schema` makes the JSON Schema; errors are raised as `Misplaced`, with the place in the file.
"""

import dataclasses
from collections.abc import Callable, Iterator
from collections.abc import Mapping as AbstractMapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar, get_type_hints

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from settings.document import Misplaced, Node, YamlMapping, YamlScalar, YamlSequence
from settings.reading import Fields, read_list, read_text

Shape = AbstractMapping[str, Any]
"""A JSON Schema."""
T = TypeVar("T")
TEXT: Final[Shape] = {"type": ["string", "number"], "minLength": 1}
COUNT: Final[Shape] = {"type": "integer", "minimum": 1}
NUMBER: Final[Shape] = {"type": "integer", "minimum": 0}
FLAG: Final[Shape] = {"type": "boolean"}
DURATION: Final[Shape] = {"type": "string", "pattern": "^[1-9][0-9]{0,5}[smhdw]$"}


def one_or_many(item: Shape) -> Shape:
    """One value, or a list of at least one."""
    return {"anyOf": [dict(item), {"type": "array", "minItems": 1, "items": dict(item)}]}


def choice(words: AbstractMapping[str, object] | tuple[str, ...]) -> Shape:
    """One of a few words."""
    return {"enum": list(words)}


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """A value of the file. `read` gets its node and the folder that relative paths count from; raises `Misplaced`.

    `key` is its name in the file, if that differs from the field's; `otherwise` makes the default of a missing key if
    the default depends on the folder. A value that was read before is kept. A `shape` that takes long to make is a
    function, as few commands need it.
    """

    read: Callable[[Node, Path], Any]
    shape: Shape | Callable[[], Shape]
    key: str = ""
    otherwise: Callable[[Path], Any] | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read nodes; see pydantic."""
        return core_schema.with_info_plain_validator_function(self._value)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The shape; see pydantic."""
        return dict(self.shape() if callable(self.shape) else self.shape)

    def _value(self, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, YamlScalar | YamlSequence | YamlMapping):
            return value
        try:
            return self.read(value, _base(info))
        except Misplaced as error:
            where = ".".join(name for name in (*_path(info), self.key or info.field_name) if name)
            told = str(error)
            raise Misplaced(told if told.startswith(f"{where}.") else f"{where}: {told}", error.problem) from None


class PassedThrough:
    """A value that is not in the file: it is handed to `read_model`, and kept as it is."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Anything; see pydantic."""
        return core_schema.any_schema()


def written(read: Callable[[Node], Any], shape: Shape, key: str = "") -> Written:
    """A `Written` whose reader does not need the folder."""
    return Written(lambda node, _base: read(node), shape, key)


FILE: Final = Written(lambda node, base: base / read_text(node), TEXT)
"""A path; a relative one counts from the folder of the configuration file."""


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """A mapping of the file, read into the annotated dataclass. `what` is its name in messages.

    `check` gets the value and the mapping's fields, and raises `Misplaced` where keys contradict each other.
    """

    what: str
    check: Callable[[Any, Fields], None] | None = None
    also: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read a mapping; see pydantic."""
        model = next(
            each for each in (source, *_arguments(source)) if isinstance(each, type) and dataclasses.is_dataclass(each)
        )
        keys = {each.key: each for each in keys_of(model)}

        def read(value: Any, inner: core_schema.ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
            if not isinstance(value, YamlScalar | YamlSequence | YamlMapping):
                return inner(value)
            fields = Fields(value, [*keys, *self.also], self.what)
            raw: dict[str, Any] = {
                each.field: fields.need(key) if each.is_needed else fields.get(key) for key, each in keys.items()
            }
            for each in keys.values():
                if raw[each.field] is None and each.otherwise is not None:
                    raw[each.field] = each.otherwise(_base(info))
            given = info.context.get("given", {}) if isinstance(info.context, dict) else {}
            unread = {name: value for name, value in given.items() if model in given.get("of", ()) and name != "of"}
            _path(info).append(info.field_name or "")
            found = inner({key: value for key, value in raw.items() if value is not None} | unread)
            _path(info).pop()
            if self.check is not None:
                self.check(found, fields)
            return found

        return core_schema.with_info_wrap_validator_function(read, handler(source))


@dataclasses.dataclass(frozen=True, slots=True)
class SectionList:
    """A list of sections; a single section counts as a list of one. `check` gets the list and its node."""

    check: Callable[[Any, Node], None]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read a list; see pydantic."""

        def read(value: Any, inner: core_schema.ValidatorFunctionWrapHandler) -> Any:
            if not isinstance(value, YamlScalar | YamlSequence | YamlMapping):
                return inner(value)
            found = inner(read_list(value, lambda node: node))
            self.check(found, value)
            return found

        return core_schema.no_info_wrap_validator_function(read, handler(source))


@dataclasses.dataclass(frozen=True, slots=True)
class SettingsKey:
    """One key of a mapping, and the field that holds it."""

    key: str
    field: str
    is_needed: bool
    otherwise: Callable[[Path], Any] | None


def keys_of(model: type) -> Iterator[SettingsKey]:
    """Keys that a mapping of this dataclass may have; fields without a mark are not in the file."""
    hints = get_type_hints(model, include_extras=True)
    for field in dataclasses.fields(model):
        marks = [
            mark
            for mark in getattr(hints[field.name], "__metadata__", ())
            if isinstance(mark, Written | Section | SectionList)
        ]
        for mark in marks:
            is_needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            key, otherwise = (mark.key, mark.otherwise) if isinstance(mark, Written) else ("", None)
            yield SettingsKey(key or field.name, field.name, is_needed, otherwise)


def read_model(model: type[T], section: Section, node: Node, base: Path, **given: Any) -> T:
    """Read a whole file. `given` are fields of `model` that are not in the file. Raises `Misplaced`."""
    context = {"base": base, "given": {**given, "of": (model,)}, "path": []}
    adapter: TypeAdapter[T] = TypeAdapter(annotated(model, section))
    return adapter.validate_python(node, context=context)


def models_of(model: type) -> Iterator[type]:
    """Dataclasses below `model` that hold sections of its file."""
    for hint in get_type_hints(model).values():
        for each in (hint, *_arguments(hint)):
            if isinstance(each, type) and dataclasses.is_dataclass(each) and any(keys_of(each)):
                yield each
                yield from models_of(each)


def _arguments(hint: Any) -> Iterator[Any]:
    for each in getattr(hint, "__args__", ()):
        yield each
        yield from _arguments(each)


def annotated(model: type, section: Section) -> Any:
    """The type that pydantic reads a whole file, or the mapping of a section, into."""
    return Annotated[model, section]


def _path(info: ValidationInfo) -> list[str]:
    """Names of the sections that are being read."""
    return info.context["path"] if isinstance(info.context, dict) else []


def _base(info: ValidationInfo) -> Path:
    return info.context["base"] if isinstance(info.context, dict) else Path()
