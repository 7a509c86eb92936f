"""From a YAML tree to frozen values: a class says which keys a mapping has and how each is read.

Each field is annotated with `Written` (one value), `Section` (a mapping with a class of its own) or `SectionList`.
`settings.schema` makes the JSON Schema from the same classes. Errors are raised as `Misplaced`, with the place in the
file.
"""

from collections.abc import Callable, Iterator
from collections.abc import Mapping as AbstractMapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeVar, get_args, get_origin

from msgspec import Struct
from msgspec.structs import fields as fields_of

from settings.document import Misplaced, Node
from settings.reading import Fields, read_list, read_text

Shape = AbstractMapping[str, Any]
"""A JSON Schema."""
T = TypeVar("T")
Model = TypeVar("Model", bound=Struct)
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


class Written(Struct, frozen=True):
    """A value of the file. `read` gets its node and the folder that relative paths count from; raises `Misplaced`.

    `key` is its name in the file, if that differs from the field's; `otherwise` makes the default of a missing key if
    the default depends on the folder. A `shape` that takes long to make is a function, as few commands need it.
    """

    read: Callable[[Node, Path], Any]
    shape: Shape | Callable[[], Shape]
    key: str = ""
    otherwise: Callable[[Path], Any] | None = None


def written(read: Callable[[Node], Any], shape: Shape, key: str = "") -> Written:
    """A `Written` whose reader does not need the folder."""
    return Written(lambda node, _base: read(node), shape, key)


FILE: Final = Written(lambda node, base: base / read_text(node), TEXT)
"""A path; a relative one counts from the folder of the configuration file."""


class Section(Struct, frozen=True):
    """A mapping of the file, read into the annotated class. `what` is its name in messages.

    `check` gets the value and the mapping's fields, and raises `Misplaced` where keys contradict each other.
    """

    what: str
    check: Callable[[Any, Fields], None] | None = None
    also: tuple[str, ...] = ()


class SectionList(Struct, frozen=True):
    """A list of sections; a single section counts as a list of one. `check` gets the list and its node."""

    check: Callable[[Any, Node], None]


class SettingsKey(Struct, frozen=True):
    """One key of a mapping, and the field that holds it. `hint` is the field's annotation, `mark` how it is read."""

    key: str
    field: str
    is_needed: bool
    hint: Any
    mark: Written | Section | SectionList
    default: Any

    @property
    def section(self) -> tuple[type[Struct], Section]:
        """Class of the key's section, or of each section in its list, and how it is read."""
        mark = self.mark if isinstance(self.mark, Section) else _mark(self.hint, Section)
        return next(each for each in _parts(self.hint) if isinstance(each, type) and issubclass(each, Struct)), mark


def keys_of(model: type[Struct]) -> tuple[SettingsKey, ...]:
    """Keys that a mapping of this class may have; fields without a mark are not in the file."""
    return tuple(
        SettingsKey(
            (mark.key if isinstance(mark, Written) else "") or field.name,
            field.name,
            field.required,
            field.type,
            mark,
            field.default,
        )
        for field in fields_of(model)
        for mark in getattr(field.type, "__metadata__", ())
        if isinstance(mark, Written | Section | SectionList)
    )


def models_of(model: type[Struct]) -> Iterator[type[Struct]]:
    """Classes below `model` that hold sections of its file."""
    for each in keys_of(model):
        if not isinstance(each.mark, Written):
            below, _ = each.section
            yield below
            yield from models_of(below)


class _Within(NamedTuple):
    """The folder that relative paths count from, and the names of the sections around a value."""

    base: Path
    names: tuple[str, ...] = ()


def read_model(model: type[Model], section: Section, node: Node, base: Path, **given: Any) -> Model:
    """Read a whole file. `given` are fields of `model` that are not in the file. Raises `Misplaced`."""
    made: Model = _read_section(model, section, node, _Within(base), **given)
    return made


def _read_section(model: type[Struct], section: Section, node: Node, within: _Within, **given: Any) -> Any:
    keys = keys_of(model)
    fields = Fields(node, [*(each.key for each in keys), *section.also], section.what)
    nodes = [fields.need(each.key) if each.is_needed else fields.get(each.key) for each in keys]
    for each, written_node in zip(keys, nodes, strict=True):
        if written_node is not None:
            given[each.field] = _read_value(each, written_node, within)
        elif isinstance(each.mark, Written) and each.mark.otherwise is not None:
            given[each.field] = each.mark.otherwise(within.base)
    made = model(**given)
    if section.check is not None:
        section.check(made, fields)
    return made


def _read_value(key: SettingsKey, node: Node, within: _Within) -> Any:
    within = _Within(within.base, (*within.names, key.key))
    if isinstance(key.mark, Written):
        try:
            return key.mark.read(node, within.base)
        except Misplaced as error:
            where, told = ".".join(within.names), str(error)
            raise Misplaced(told if told.startswith(f"{where}.") else f"{where}: {told}", error.problem) from None
    model, section = key.section
    if isinstance(key.mark, Section):
        return _read_section(model, section, node, within)
    found: tuple[Any, ...] = read_list(node, lambda each: _read_section(model, section, each, within))
    key.mark.check(found, node)
    return found


def _mark(hint: Any, kind: type[T]) -> T:
    """The mark of this kind on a part of an annotation."""
    return next(
        mark
        for each in _parts(hint)
        if get_origin(each) is Annotated
        for mark in each.__metadata__
        if type(mark) is kind
    )


def _parts(hint: Any) -> Iterator[Any]:
    """The annotation and every annotation in it."""
    yield hint
    for each in get_args(hint):
        yield from _parts(each)
