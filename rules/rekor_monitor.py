"""Reading a rekor-monitor configuration, unmodified, into our rules.

What it matches, as its code has it: `certSubject`, `issuers` and `subjects` are Go regular expressions (RE2) that may
match anywhere in the value; fingerprints and extension values are exact. Every match is news there, so the rules
written here have no `expect`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rules.document import Listing, Mapping, Misplaced, Node, Problem, RuleFileError, Scalar, read_yaml
from rules.pattern import MAX_PATTERN, compile_regex
from rules.reading import read_list, read_text
from rules.rule_file import load_rules
from rules.selection import is_oid, normal_fingerprint
from rules.writing import Value, rule_lines
from sigstore_entries.fulcio import BY_NAME

# Where rekor-monitor's name for an extension is not ours with dashes.
_NAMES: Final = {"source-repository-visibility-at-signing": "source_repository_visibility"}
# Settings of the program rather than of what it looks for: said to be left out, each once.
_ELSEWHERE: Final = {
    "startIndex": "`start` of a log in signwatch.yaml says where to begin",
    "endIndex": "following has no end",
    "outputIdentities": "use a channel of type jsonl",
    "logInfoFile": "checkpoints are kept in the database",
    "identityMetadataFile": "positions are kept in the database",
    "githubIssue": "use a channel",
    "emailNotificationSMTP": "use a channel of type email",
    "emailNotificationMailgun": "use a channel of type email",
    "emailNotificationSendGrid": "use a channel of type email",
    "trustedCAs": "authorities come from the trusted root",
    "ctLogs": "logs come from the trusted root",
}
_REGEX_SPECIAL: Final = frozenset(".*+?()[]{}|^$\\")


@dataclass(frozen=True, slots=True)
class _Made:
    name: str
    title: str
    select: dict[str, Value]


class _Import:
    """Rules as they are found, and remarks on what could not be carried over."""

    def __init__(self) -> None:
        self.rules: list[_Made] = []
        self.remarks: list[Problem] = []

    def remark(self, node: Node, text: str) -> None:
        self.remarks.append(Problem(text, node.line, node.column))

    def add(self, kind: str, title: str, select: dict[str, Value]) -> None:
        number = sum(1 for each in self.rules if each.name.startswith(kind)) + 1
        self.rules.append(_Made(f"{kind}-{number}", title, select))


def import_rekor_monitor(text: str, name: str = "rekor-monitor configuration") -> str:
    """YAML text of a rule file. What cannot be expressed stands in comments at its top, with its line.

    Raises `RuleFileError` when the text is no rekor-monitor configuration or watches nothing that can be expressed.
    """
    root = read_yaml(text, name)
    found = _Import()
    try:
        _read_root(root, found)
    except Misplaced as misplaced:
        raise RuleFileError([misplaced.problem], name) from None
    if not found.rules:
        raise RuleFileError([*found.remarks, Problem("nothing to watch was found under monitoredValues")], name)
    written = "\n".join([*_head(found.remarks), *_body(found.rules), ""])
    load_rules(written, "the imported rules")
    return written


def _head(remarks: Sequence[Problem]) -> Iterator[str]:
    yield "# Imported from a rekor-monitor configuration. Every match is news until a rule has `expect`."
    yield "# Regular expressions could match anywhere in a value there, so they stand between `.*` here."
    for remark in remarks:
        yield f"# Line {remark.line}: {remark.message}".encode("ascii", "backslashreplace").decode()


def _body(rules: Sequence[_Made]) -> Iterator[str]:
    yield "version: 1"
    yield "rules:"
    for made in rules:
        yield from rule_lines(made.name, made.title[:200], made.select, {})


def _read_root(root: Node, found: _Import) -> None:
    values: Node | None = None
    for key, node in _entries(root, "the configuration"):
        if key.text == "monitoredValues":
            values = node
        else:
            found.remark(key, f"{key.text[:60]!r} is left out: {_ELSEWHERE.get(key.text, 'it is not known')}")
    if values is None:
        raise Misplaced("monitoredValues is missing", root)
    for key, node in _entries(values, "monitoredValues"):
        if isinstance(node, Scalar) and node.is_null:
            continue
        _read_values(key, node, found)


def _read_values(key: Scalar, node: Node, found: _Import) -> None:
    reader = _READERS.get(key.text)
    if reader is None:
        found.remark(key, f"{key.text[:60]!r} is left out: it is not known")
    else:
        reader(node, found)


def _oid_matchers(node: Node, found: _Import) -> None:
    """A list of extensions in older releases, a mapping of all three kinds in newer ones."""
    if not isinstance(node, Mapping):
        _extensions(node, found)
        return
    for key, value in node.entries:
        _read_values(key, value, found)


def _cert_identities(node: Node, found: _Import) -> None:
    for item in _items(node):
        _cert_identity(item, found)


def _subjects(node: Node, found: _Import) -> None:
    for item in _items(node):
        if (pattern := _regex(item, found)) is not None:
            found.add("subject", f"Subject {read_text(item)}", {"identity": pattern})


def _extensions(node: Node, found: _Import) -> None:
    for item in _items(node):
        _extension(item, found)


def _cert_identity(item: Node, found: _Import) -> None:
    fields = {key.text: value for key, value in _entries(item, "an item of certIdentities")}
    for key, _ in _entries(item, "an item of certIdentities"):
        if key.text not in ("certSubject", "issuers"):
            found.remark(key, f"{key.text[:60]!r} is left out: it is not known")
    if "certSubject" not in fields:
        raise Misplaced("'certSubject' is missing", item)
    subject = _regex(fields["certSubject"], found)
    select: dict[str, Value] = {} if subject is None else {"identity": subject}
    issuers = [_regex(each, found) for each in _items(fields["issuers"])] if "issuers" in fields else []
    # An issuer that cannot be carried over would make the rule match less than it did.
    if issuers and None not in issuers:
        select["issuer"] = [issuer for issuer in issuers if issuer is not None]
    if subject is not None:
        found.add("identity", f"Identity {read_text(fields['certSubject'])}", select)


def _fingerprints(node: Node, found: _Import) -> None:
    for item in _items(node):
        text = read_text(item)
        normal = normal_fingerprint(text)
        is_hex = len(normal) in (40, 64) and not set(normal) - set("0123456789abcdef")
        if not is_hex and not normal.startswith("SHA256:"):
            found.remark(
                item, f"fingerprint {text[:80]!r} is left out: no whole fingerprint looks like it, so it never matched"
            )
            continue
        found.add("fingerprint", f"Fingerprint {text}", {"fingerprint": normal})


def _fulcio_extensions(node: Node, found: _Import) -> None:
    for key, value in _entries(node, "fulcioExtensions"):
        claim = _NAMES.get(key.text.lower(), key.text.lower().replace("-", "_"))
        if claim not in BY_NAME:
            found.remark(key, f"extension {key.text[:60]!r} is left out: it is not known")
            continue
        texts = [read_text(each) for each in _items(value)]
        found.add("extension", f"{BY_NAME[claim].title}: {', '.join(texts)}", {claim: texts})


def _extension(item: Node, found: _Import) -> None:
    fields = {key.text: value for key, value in _entries(item, "an extension")}
    if "objectIdentifier" not in fields or "extensionValues" not in fields:
        raise Misplaced("an extension has objectIdentifier and extensionValues", item)
    oid_node = fields["objectIdentifier"]
    oid = ".".join(read_list(oid_node, read_text)) if isinstance(oid_node, Listing) else read_text(oid_node)
    if not is_oid(oid):
        found.remark(oid_node, f"extension {oid[:60]!r} is left out: not a dotted object identifier")
        return
    texts = [read_text(each) for each in _items(fields["extensionValues"])]
    found.add("extension", f"{oid}: {', '.join(texts)}", {"oid": {oid: texts}})


def _regex(node: Node, found: _Import) -> Value | None:
    """A Go regular expression that may match anywhere, as one that matches the whole value."""
    text = read_text(node)
    if not _REGEX_SPECIAL & set(text):
        return {"glob": f"*{text}*"}
    whole = f".*(?:{text}).*"
    try:
        if len(whole) > MAX_PATTERN:
            raise ValueError(f"longer than {MAX_PATTERN} characters")  # noqa: TRY301  both are told the same way
        compile_regex(text, ignore_case=False)
        compile_regex(whole, ignore_case=False)
    except ValueError as error:
        found.remark(node, f"pattern {text[:80]!r} is left out: {error}")
        return None
    return {"regex": whole}


_READERS: Final = {
    "certIdentities": _cert_identities,
    "subjects": _subjects,
    "fingerprints": _fingerprints,
    "oidMatchers": _oid_matchers,
    "fulcioExtensions": _fulcio_extensions,
    "customExtensions": _extensions,
    "oidExtensions": _extensions,
}


def _entries(node: Node, what: str) -> tuple[tuple[Scalar, Node], ...]:
    if not isinstance(node, Mapping):
        raise Misplaced(f"{what} is a mapping (key: value)", node)
    return node.entries


def _items(node: Node) -> tuple[Node, ...]:
    return node.items if isinstance(node, Listing) else (node,)
