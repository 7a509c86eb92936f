"""Reading a rekor-monitor configuration, unmodified, into our rules.

A long regular expression is cut at its alternatives into several short ones, which the index can look up.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from rules.pattern import MAX_PATTERN, compile_regex
from rules.rule_file import DocumentValue, load_rules, rule_lines
from rules.selection import is_oid, normal_fingerprint
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
from settings.reading import read_list, read_text
from sigstore_entries.certificate import BY_NAME

MAX_PIECES: Final = 1_000

_FLAGS: Final = re.compile(r"\(\?[imsU-]+\)")
_OPENING: Final = re.compile(r"\(\?(?::|P?<[A-Za-z0-9_]+>)|\((?!\?)")
_QUANTIFIERS: Final = frozenset("*+?{")


class _Group(NamedTuple):
    """Alternatives beside each other: where the first one starts, and where each of them ends."""

    start: int
    ends: tuple[int, ...]


def split_alternatives(text: str, limit: int) -> list[str]:
    """Regular expressions of at most `limit` characters that together match the texts that this RE2 expression matches.

    Cut is at the alternatives outside all groups, or at those in the longest group that is neither repeated nor in
    another one. Raises `ValueError` when that is not enough.
    """
    if len(text) <= limit:
        return [text]
    group = _alternatives(text)
    head, tail, start = text[: group.start], text[group.ends[-1] :], group.start
    parts: list[str] = []
    for end in group.ends:
        alternative, start = text[start:end], end + 1
        if parts and len(parts[-1]) + 1 + len(alternative) + len(tail) <= limit:
            parts[-1] += "|" + alternative
        else:
            parts.append(head + alternative)
    pieces: list[str] = []
    for part in parts:
        if len(pieces) >= MAX_PIECES:
            raise ValueError(f"too long: it would become more than {MAX_PIECES} patterns")
        pieces += split_alternatives(part + tail, limit)
    return pieces


def _alternatives(text: str) -> _Group:
    """The alternatives at which to cut a text. Raises `ValueError` when there are none."""
    flags = _FLAGS.match(text)
    start = flags.end() if flags else 0
    bars: list[int] = []
    groups: list[_Group] = []
    depth, inside, ends = 0, 0, list[int]()
    for at, end in _marks(text, start):
        if text[at] == "(":
            depth += 1
            if depth == 1:
                inside, ends = end, []
        elif text[at] == "|":
            if depth <= 1:
                (ends if depth else bars).append(at)
        else:
            depth -= 1
            if depth == 0 and ends and text[end : end + 1] not in _QUANTIFIERS:
                groups.append(_Group(inside, (*ends, at)))
    if bars:
        return _Group(start, (*bars, len(text)))
    if not groups:
        raise ValueError("too long, without alternatives to cut it at")
    return max(groups, key=lambda each: each.ends[-1] - each.start)


def _marks(text: str, at: int) -> Iterator[tuple[int, int]]:
    """Start and end of each opening, bar and closing parenthesis, outside of escapes and character classes.

    Raises `ValueError` for text in which a cut would change the meaning: quoted text, flags in the middle.
    """
    while at < len(text):
        end = at + 1
        if text.startswith("\\Q", at):
            raise ValueError("too long, and not cut because it holds quoted text (\\Q)")
        if text[at] == "\\":
            end = at + 2
        elif text[at] == "[":
            end = _class_end(text, at)
        elif text[at] == "(":
            opening = _OPENING.match(text, at)
            if opening is None:
                raise ValueError("too long, and not cut because it holds flags in the middle")
            end = opening.end()
            yield at, end
        elif text[at] in "|)":
            yield at, end
        at = end


def _class_end(text: str, at: int) -> int:
    """End of the character class that opens at `at`: `]` right after the opening, or in `[:alpha:]`, ends nothing."""
    at += 2 if text.startswith("[^", at) else 1
    first = at
    while at < len(text):
        if text[at] == "\\":
            at += 2
        elif text.startswith("[:", at) and (end := text.find(":]", at)) >= 0:
            at = end + 2
        elif text[at] == "]" and at > first:
            return at + 1
        else:
            at += 1
    raise ValueError("a character class without an end")


# rekor-monitor's names of extensions that differ from ours by more than dashes.
_NAMES: Final = {"source-repository-visibility-at-signing": "source_repository_visibility"}
# Settings of the program, not of its searches: a remark says once of each that it is left out.
_ELSEWHERE: Final = {
    "startIndex": "`start` of a log in signwatch.yaml says where to begin",
    "endIndex": "following has no end",
    "outputIdentities": "use a channel of type jsonl",
    "outputIdentitiesFormat": "use a channel of type jsonl",
    "logInfoFile": "checkpoints are kept in the database",
    "identityMetadataFile": "positions are kept in the database",
    "githubIssue": "use a channel",
    "emailNotificationSMTP": "use a channel of type email",
    "emailNotificationMailgun": "use a channel of type email",
    "emailNotificationSendGrid": "use a channel of type email",
    "trustedCAs": "authorities come from the trusted root",
    "caRootsFile": "authorities come from the trusted root",
    "caIntermediatesFile": "authorities come from the trusted root",
    "ctLogs": "logs come from the trusted root",
    "ctShards": "logs come from the trusted root",
}
_REGEX_SPECIAL: Final = frozenset(".*+?()[]{}|^$\\")
_MAX_VALUE: Final = 100_000  # characters of one value, a long alternation for example


class Imported(Struct, frozen=True):
    """A rule file as YAML text.

    `lost` lists the values that the configuration watches and the rules do not, with places.
    """

    text: str
    lost: tuple[SettingsProblem, ...]


class _Import:
    """Rules as they are found, and remarks on settings left out. `above` are the lines before the configuration."""

    def __init__(self) -> None:
        self.rules: list[str] = []
        self.remarks: list[SettingsProblem] = []
        self.lost: list[SettingsProblem] = []
        self.above = 0
        self._numbers: Counter[str] = Counter()

    def remark(self, node: Node, text: str) -> None:
        """Record why a setting that watches no value is left out."""
        self.remarks.append(SettingsProblem(text, node.line + self.above, node.column))

    def lose(self, node: Node, text: str) -> None:
        """Record why a watched value cannot be carried over."""
        self.remark(node, text)
        self.lost.append(self.remarks[-1])

    def add(self, node: Node, kind: str, title: str, select: dict[str, DocumentValue]) -> None:
        """Add a rule, when it is one that loads."""
        lines = rule_lines(f"{kind}-{self._numbers[kind] + 1}", title[:200], select, {})
        try:
            load_rules("\n".join(["version: 1", "rules:", *lines, ""]))
        except DocumentError as error:
            self.lose(node, f"{title[:80]!r} is left out: {error.problems[0].message}")
            return
        self._numbers[kind] += 1
        self.rules += lines


def import_rekor_monitor(text: str, name: str = "rekor-monitor configuration") -> Imported:
    """Rules that watch the same values as the configuration. Comments at the top name settings left out, with lines.

    Raises `DocumentError` when the text is no rekor-monitor configuration or watches nothing that can be expressed.
    """
    found = _Import()
    try:
        _read_root(read_yaml(text, name), found)
    except Misplaced as misplaced:
        problem = replace(misplaced.problem, line=misplaced.problem.line + found.above)
        raise DocumentError([problem], name) from None
    if not found.rules:
        raise DocumentError([*found.remarks, SettingsProblem("nothing to watch was found under monitoredValues")], name)
    written = "\n".join([*_head(found.remarks), "version: 1", "rules:", *found.rules, ""])
    load_rules(written, "the imported rules")
    return Imported(written, tuple(found.lost))


def _head(remarks: Sequence[SettingsProblem]) -> Iterator[str]:
    yield "# Imported from a rekor-monitor configuration. Every match is reported until a rule has `expect`."
    yield "# Regular expressions could match anywhere in a value there, so they stand between `.*` here."
    for remark in remarks:
        yield f"# Line {remark.line}: {remark.message}".encode("ascii", "backslashreplace").decode()


def _read_root(root: Node, found: _Import) -> None:
    keys = {key.text: value for key, value in _entries(root, "the configuration")}
    if "monitoredValues" in keys:
        _read_configuration(root, found)
    elif not keys.keys().isdisjoint(_READERS):
        _read_monitored(root, found)
    elif "jobs" in keys:
        _read_workflow(keys["jobs"], found)
    else:
        raise Misplaced("monitoredValues is missing", root)


def _read_configuration(root: Node, found: _Import) -> None:
    for key, node in _entries(root, "the configuration"):
        if key.text == "monitoredValues":
            _read_monitored(node, found)
        elif key.text in _ELSEWHERE:
            found.remark(key, f"{key.text!r} is left out: {_ELSEWHERE[key.text]}")
        else:
            found.lose(key, f"{key.text[:60]!r} is left out: it is not known")


def _read_monitored(values: Node, found: _Import) -> None:
    for key, node in _entries(values, "monitoredValues"):
        _read_values(key, node, found)


def _read_workflow(jobs: Node, found: _Import) -> None:
    """Configurations that jobs of a GitHub workflow pass on, each as one text."""
    texts = [value for _, job in _entries(jobs, "jobs") for value in _passed_on(job)]
    if not texts:
        raise Misplaced("no job has `with: {config: …}`: import the configuration file that the workflow names", jobs)
    for scalar in texts:
        # A block of text begins on the line after its `|`.
        found.above = scalar.line - (0 if "\n" in scalar.text else 1)
        try:
            root = read_yaml(scalar.text, "the configuration")
        except DocumentError as error:
            first = error.problems[0]
            raise Misplaced(first.message, YamlScalar("", plain=True, line=first.line, column=first.column)) from None
        _read_root(root, found)
        found.above = 0


def _passed_on(job: Node) -> Iterator[YamlScalar]:
    for key, inputs in job.entries if isinstance(job, YamlMapping) else ():
        if key.text == "with":
            for name, value in _entries(inputs, "with"):
                if name.text in ("config", "identities") and isinstance(value, YamlScalar):
                    yield value


def _read_values(key: YamlScalar, node: Node, found: _Import) -> None:
    reader = _READERS.get(key.text)
    if reader is None:
        found.lose(key, f"{key.text[:60]!r} is left out: it is not known")
    elif not _is_nothing(node):
        reader(node, found)


def _oid_matchers(node: Node, found: _Import) -> None:
    """A list of extensions in older releases, a mapping of all three kinds in newer ones."""
    if not isinstance(node, YamlMapping):
        _extensions(node, found)
        return
    for key, value in node.entries:
        _read_values(key, value, found)


def _cert_identities(node: Node, found: _Import) -> None:
    for item in _items(node):
        _cert_identity(item, found)


def _subjects(node: Node, found: _Import) -> None:
    for item in _items(node):
        for pattern in _regexes(item, found):
            found.add(item, "subject", f"Subject {_text(item)}", {"identity": pattern})


def _extensions(node: Node, found: _Import) -> None:
    for item in _items(node):
        _extension(item, found)


def _cert_identity(item: Node, found: _Import) -> None:
    fields = {key.text: value for key, value in _entries(item, "an item of certIdentities")}
    for key, _ in _entries(item, "an item of certIdentities"):
        if key.text not in ("certSubject", "issuers"):
            found.lose(key, f"{key.text[:60]!r} is left out: it is not known")
    if "certSubject" not in fields:
        raise Misplaced("'certSubject' is missing", item)
    subject = fields["certSubject"]
    # No issuer means any issuer: without an issuer that cannot be carried over, the rule matches more.
    issuers = [_regexes(each, found) for each in _items(fields["issuers"])] if "issuers" in fields else []
    every: list[DocumentValue] = [pattern for patterns in issuers for pattern in patterns]
    narrowed: dict[str, DocumentValue] = {"issuer": every} if issuers and all(issuers) else {}
    for pattern in _regexes(subject, found):
        found.add(subject, "identity", f"Identity {_text(subject)}", {"identity": pattern, **narrowed})


def _fingerprints(node: Node, found: _Import) -> None:
    for item in _items(node):
        text = _text(item)
        normal = normal_fingerprint(text)
        is_hex = len(normal) in (40, 64) and not set(normal) - set("0123456789abcdef")
        if not is_hex and not normal.startswith("SHA256:"):
            found.remark(
                item, f"fingerprint {text[:80]!r} is left out: no whole fingerprint looks like it, so it never matched"
            )
            continue
        found.add(item, "fingerprint", f"Fingerprint {text}", {"fingerprint": normal})


def _fulcio_extensions(node: Node, found: _Import) -> None:
    for key, value in _entries(node, "fulcioExtensions"):
        claim = _NAMES.get(key.text.lower(), key.text.lower().replace("-", "_"))
        if claim not in BY_NAME:
            found.lose(key, f"extension {key.text[:60]!r} is left out: it is not known")
        else:
            _add_extension(key, BY_NAME[claim].title, claim, value, found)


def _extension(item: Node, found: _Import) -> None:
    fields = {key.text: value for key, value in _entries(item, "an extension")}
    if "objectIdentifier" not in fields or "extensionValues" not in fields:
        raise Misplaced("an extension has objectIdentifier and extensionValues", item)
    oid_node = fields["objectIdentifier"]
    oid = ".".join(read_list(oid_node, read_text)) if isinstance(oid_node, YamlSequence) else read_text(oid_node)
    if not is_oid(oid):
        found.lose(oid_node, f"extension {oid[:60]!r} is left out: not a dotted object identifier")
        return
    _add_extension(item, oid, oid, fields["extensionValues"], found)


def _add_extension(place: Node, title: str, field: str, values: Node, found: _Import) -> None:
    texts = [_text(each) for each in _items(values)]
    if not texts:
        found.remark(place, f"extension {title!r} is left out: it has no values, so it watched nothing")
        return
    select: dict[str, DocumentValue] = {field: texts} if field in BY_NAME else {"oid": {field: texts}}
    found.add(place, "extension", f"{title}: {', '.join(texts)}", select)


def _regexes(node: Node, found: _Import) -> list[DocumentValue]:
    """A Go regular expression that may match anywhere, as ones that match the whole value: any of them may.

    One that is longer than a pattern may be is cut at its alternatives. None when it cannot be carried over.
    """
    text = _text(node)
    if not _REGEX_SPECIAL & set(text):
        return [{"glob": f"*{text}*"}]
    whole = ".*(?:{}).*"
    try:
        parts = split_alternatives(text, MAX_PATTERN - len(whole.format("")))
        for part in parts:
            compile_regex(part, ignore_case=False)
    except ValueError as error:
        found.lose(node, f"pattern {text[:80]!r} is left out: {error}")
        return []
    return [{"regex": whole.format(part)} for part in parts]


_READERS: Final = {
    "certIdentities": _cert_identities,
    "subjects": _subjects,
    "fingerprints": _fingerprints,
    "oidMatchers": _oid_matchers,
    "fulcioExtensions": _fulcio_extensions,
    "customExtensions": _extensions,
    "oidExtensions": _extensions,
}


def _text(node: Node) -> str:
    return read_text(node, _MAX_VALUE)


def _is_nothing(node: Node) -> bool:
    """True for a missing value or an empty list, which rekor-monitor allows and which watches no value."""
    return (isinstance(node, YamlScalar) and node.is_null) or (isinstance(node, YamlSequence) and not node.items)


def _entries(node: Node, what: str) -> tuple[tuple[YamlScalar, Node], ...]:
    if not isinstance(node, YamlMapping):
        raise Misplaced(f"{what} is a mapping (key: value)", node)
    return node.entries


def _items(node: Node) -> tuple[Node, ...]:
    if isinstance(node, YamlSequence):
        return node.items
    return () if _is_nothing(node) else (node,)
