"""Rules that subscribers may ask for.

A request is `select` and `expect` of a rule: the part of the rule language that is cheap to match and judge for a
million people. Selected is a name, a repository, a digest or a key; expected is what the entry itself shows, or what
the subscriber's own past says of it. A list kept elsewhere, a command and what other logs show stay the operator's.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from rules.expectations.kinds import BY_KEY, read_expect
from rules.lint import HintId, lint
from rules.matching.keys import Key, Literal, ValuePrefix, WholeValue
from rules.matching.matcher import PREFIX
from rules.matching.required_keys import RequiredKeys, required_keys_of
from rules.pattern import compile_regex
from rules.rule import JudgedByFacts, Rule, RuleSet
from rules.rule_file import flow, scalar
from rules.selection import read_select, walk
from settings.document import (
    DocumentError,
    Misplaced,
    Node,
    SettingsProblem,
    YamlMapping,
    YamlScalar,
    YamlSequence,
    read_yaml,
)
from settings.reading import Fields

KEYS_VERSION: Final = 1
"""Raise it when `rules.matching` files a pattern under other keys: stored keys are then computed anew."""
SUBSCRIBERS: Final = "subscribers"
"""Name of the channel that every alert of a request is routed to."""
MAX_TEXT: Final = 16 * 1024
# JSON writes a character beyond U+FFFF as a pair of surrogates, YAML as one escape.
_PAIR: Final = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")
MAX_PATTERNS: Final = 20
MAX_REGEX: Final = 200
MAX_PROGRAM: Final = 2_000
"""Instructions of one compiled regular expression, some 16 bytes each."""
_MAX_VALUES: Final = 200
_ASK_KEYS: Final = ("select", "expect")
_OTHER_LOGS: Final = "it depends on which entries of other logs this installation selects, for whichever subscriber"
_ELSEWHERE: Final = "a subscription cannot read a list kept elsewhere. List the digests under `digests` instead"
_REFUSED: Final[Mapping[str, str]] = {
    "log_entry_within": _OTHER_LOGS,
    "certificate_log_within": _OTHER_LOGS,
    "digests_from": _ELSEWHERE,
}
_REFUSED_FIELDS: Final = frozenset({"kind", "log"})
BY_PAST: Final = frozenset(key for key, kind in BY_KEY.items() if issubclass(kind, JudgedByFacts))
"""Keys of `expect` that depend on earlier signings, answers and announcements."""


class Ask(Struct, frozen=True):
    """A checked request. `document` is its canonical JSON: equal requests have equal documents.

    One that is judged `by_past` belongs to a single subscription: what one subscriber answers or announces must not
    change what another is told. All others are shared by everyone who asks the same.
    """

    document: str
    keys: str

    @property
    def by_past(self) -> bool:
        """True if some expectation depends on earlier signings, answers or announcements."""
        return not BY_PAST.isdisjoint(json.loads(self.document).get("expect", ()))

    def digest(self, owner: str) -> bytes:
        """SHA-256 of the owner (empty for a shared request) and the document."""
        return hashlib.sha256(f"{owner}\n{self.document}".encode()).digest()


def read_ask(text: str) -> Ask:
    """Read `select` and `expect` as YAML or JSON. Raises `DocumentError` with the place and what would be allowed."""
    if len(text) > MAX_TEXT:
        raise DocumentError([SettingsProblem(f"longer than {MAX_TEXT // 1024} KiB")], "subscription")
    node = read_yaml(text, "subscription")
    try:
        _check(node)
        plain = _plain(node)
        document = json.dumps(plain, separators=(",", ":"), ensure_ascii=True)
        rule = _rule(node, PREFIX + "0")
        required = _checked_keys(rule, node)
    except Misplaced as misplaced:
        raise DocumentError([misplaced.problem], "subscription") from None
    return Ask(document, keys_text(required))


def ask_of(select: Mapping[str, Any], expect: Mapping[str, Any]) -> Ask:
    """Make a request of plain values. Raises `DocumentError`."""
    text = json.dumps({"select": select, **({"expect": expect} if expect else {})})
    return read_ask(_PAIR.sub(_one_escape, text))


def _one_escape(pair: re.Match[str]) -> str:
    character = json.loads(f'"{pair[0]}"')
    return f"\\U{ord(character):08x}"


def rule_of(number: int, document: str) -> Rule:
    """The rule of a stored request; rules of equal requests share their parts.

    Raises `DocumentError` if this version cannot read what an earlier one wrote.
    """
    try:
        return replace(_rule_of(document), id=f"{PREFIX}{number}")
    except (Misplaced, ValueError) as error:
        raise DocumentError(
            [SettingsProblem(f"the stored request {number} cannot be read: {error}")], "subscription"
        ) from None


@lru_cache(maxsize=1_024)
def _rule_of(document: str) -> Rule:
    return _rule(_node(json.loads(document)), PREFIX)


def yaml_of(document: str) -> str:
    """A request as YAML for people: what `read_ask` reads."""
    plain = json.loads(document)
    lines: list[str] = []
    for part in _ASK_KEYS:
        if part in plain:
            lines.append(f"{part}:")
            lines += [f"  {scalar(key)}: {flow(value)}" for key, value in plain[part].items()]
    return "\n".join([*lines, ""])


def keys_text(required: RequiredKeys) -> str:
    """Index keys as JSON: `[form, folded, text]` of each, literals in hex; then the fields."""
    keys = [[_FORMS[type(key)], int(key.folded), _text(key)] for key in required.keys]
    return json.dumps([keys, list(required.fields)], separators=(",", ":"))


def required_keys_of_document(document: str) -> RequiredKeys:
    """Keys computed from a stored request. Raises `DocumentError`."""
    required = required_keys_of(rule_of(0, document).select)
    if required is None:
        raise DocumentError(
            [SettingsProblem("the stored request names nothing that an entry must contain")], "subscription"
        )
    return required


_FORMS: Final[Mapping[type, str]] = {WholeValue: "w", ValuePrefix: "h", Literal: "l"}


def _text(key: Key) -> str:
    return key.data.hex() if isinstance(key, Literal) else key.text


def _rule(node: Node, rule_id: str) -> Rule:
    fields = Fields(node, _ASK_KEYS, "a subscription")
    return Rule(id=rule_id, select=read_select(fields.need("select")), expect=fields.read("expect", read_expect, ()))


def _check(node: Node) -> None:
    """Refuse what costs more than one subscription may cost."""
    fields = Fields(node, _ASK_KEYS, "a subscription")
    fields.need("select")
    expect = fields.get("expect")
    if isinstance(expect, YamlMapping):
        for key, _ in expect.entries:
            if key.text in _REFUSED:
                raise Misplaced(f"`{key.text}` is not for subscriptions: {_REFUSED[key.text]}", key)
            if key.text not in BY_KEY:
                allowed = sorted(set(BY_KEY) - set(_REFUSED))
                raise Misplaced(f"expect has no key {key.text[:80]!r}; known keys: {', '.join(allowed)}", key)
    _check_regexes(node)
    if _values(node) > _MAX_VALUES:
        raise Misplaced(f"more than {_MAX_VALUES} values in one subscription", node)


def _check_regexes(node: Node) -> None:
    """Refuse regular expressions, also of `expect`, that would take much memory to keep or to run."""
    found = list(_regexes(node))
    if len(found) > MAX_PATTERNS:
        raise Misplaced(
            f"the number of regular expressions is {len(found)}; a subscription may have {MAX_PATTERNS}", node
        )
    for each in found:
        if len(each.text) > MAX_REGEX:
            raise Misplaced(f"a regular expression of a subscription has at most {MAX_REGEX} characters", each)
        try:
            size = int(compile_regex(each.text, ignore_case=False).programsize)
        except ValueError as error:
            raise Misplaced(f"not a regular expression that RE2 reads: {error}", each) from None
        if size > MAX_PROGRAM:
            raise Misplaced(
                f"the compiled size of this regular expression is {size}; a subscription may have {MAX_PROGRAM}. "
                "Use fewer repetitions, or a glob",
                each,
            )


def _regexes(node: Node) -> Iterator[YamlScalar]:
    if isinstance(node, YamlSequence):
        for item in node.items:
            yield from _regexes(item)
    elif isinstance(node, YamlMapping):
        for key, value in node.entries:
            if key.text == "regex" and isinstance(value, YamlScalar):
                yield value
            else:
                yield from _regexes(value)


def _checked_keys(rule: Rule, node: Node) -> RequiredKeys:
    patterns = [(match.field, pattern) for match in walk(rule.select) for pattern in match.patterns]
    if len(patterns) > MAX_PATTERNS:
        raise Misplaced(f"select has {len(patterns)} patterns; a subscription may have {MAX_PATTERNS}", node)
    for field, _ in patterns:
        if field in _REFUSED_FIELDS:
            raise Misplaced(f"`{field}` is the same for many signers: select an identity, repository or key", node)
    required = required_keys_of(rule.select)
    too_broad = [hint for hint in lint(RuleSet((rule,))) if hint.id in (HintId.TOO_BROAD, HintId.NEVER_MATCHES)]
    if too_broad:
        raise Misplaced(f"{too_broad[0].message}. Nothing was subscribed", node)
    if required is None:
        raise Misplaced(
            "names nothing that an entry must contain, so it would match half the log. Add an identity, a repository, "
            "a digest or a fingerprint",
            node,
        )
    return required


def _values(node: Node) -> int:
    if isinstance(node, YamlScalar):
        return 1
    children: Sequence[Node] = node.items if isinstance(node, YamlSequence) else [value for _, value in node.entries]
    return sum(_values(child) for child in children)


def _plain(node: Node) -> Any:
    if isinstance(node, YamlScalar):
        return node.text
    if isinstance(node, YamlSequence):
        return [_plain(item) for item in node.items]
    return {key.text: _plain(value) for key, value in sorted(node.entries, key=lambda entry: _order(entry[0].text))}


def _order(key: str) -> tuple[int, str]:
    return (_ASK_KEYS.index(key) if key in _ASK_KEYS else len(_ASK_KEYS)), key


def _node(value: Any) -> Node:
    if isinstance(value, str):
        return YamlScalar(value, plain=False, line=0, column=0)
    if isinstance(value, list):
        return YamlSequence(tuple(_node(item) for item in value), 0, 0)
    if isinstance(value, dict):
        entries = tuple((YamlScalar(key, plain=False, line=0, column=0), _node(item)) for key, item in value.items())
        return YamlMapping(entries, 0, 0)
    raise ValueError(f"{value!r} is not a text, list or mapping")
