"""A search request, and the keys of the index that it looks for."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from msgspec import Struct

from monitor.archive.reading import KeySpan
from monitor.archive.rows import fingerprint_bytes
from monitor.archive.search_index import LONGEST, TEXTS, KeyKind, lowered, text_key, value_key
from rules.pattern import glob_prefix
from rules.subject import HOSTS

MOST_OF_A_PAGE: Final = 1_000_000
"""`Query.most` of a query over HTTP: about a second of work."""
SECONDS_OF_A_PAGE: Final = 3.0
"""`Query.seconds` of a query of the site; a page asks for two at most."""
ALGORITHMS: Final = {40: "sha1", 64: "sha256", 96: "sha384", 128: "sha512"}
_PLACES: Final = tuple(f"{host}/" for host in HOSTS)
_LONGEST_HOST: Final = max(map(len, _PLACES))
_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "w": timedelta(weeks=1)}
_LONGEST_AGE: Final = 7
_HEX_DIGITS: Final = frozenset("0123456789abcdef")


class BadQuery(ValueError):
    """The query cannot be asked; the message says why."""


class MatchMode(StrEnum):
    """Comparison of a query's text. Upper and lower case of A to Z are equal; other characters must be identical."""

    EXACT = "exact"
    PREFIX = "prefix"
    GLOB = "glob"


class Query(Struct, frozen=True):
    """A search request. Without `kinds` the text decides: a digest or fingerprint if it is one, else all texts.

    `since <= time < until`; entries without a time match. `logs` are log ids, or names of logs of several trees; empty
    for all logs. `rekor_only` leaves out CT logs. `trusted` is true for entries that a signer with a trusted
    certificate made (if the value is about a signer, that very signer), false for all other entries, `None` for both.
    `most` bounds the number of keys read, and `seconds` the time if it is given; the coverage names the ranges left
    out.
    """

    text: str
    kinds: frozenset[KeyKind] = frozenset()
    match: MatchMode = MatchMode.EXACT
    since: datetime | None = None
    until: datetime | None = None
    logs: frozenset[str] = frozenset()
    limit: int = 50
    trusted: bool | None = None
    most: int | None = None
    seconds: float | None = None
    rekor_only: bool = False

    def wants(self, log: str) -> bool:
        """True if the query searches this log."""
        return not self.logs or log in self.logs or log.partition("/")[0] in self.logs


def keys_of(query: Query) -> list[KeySpan]:
    """Keys that a query looks for. Raises `BadQuery`."""
    text = query.text
    if not text or len(text.encode("utf-8", "replace")) > 8 * LONGEST:
        raise BadQuery(f"a text of 1 to {8 * LONGEST} bytes can be searched for")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadQuery("the text is not Unicode") from None
    kinds = set(query.kinds or _kinds_of(text, query.match))
    if KeyKind.WORKFLOW in kinds:
        # A row names a workflow among the identities where the certificate is the workflow's own.
        kinds.add(KeyKind.IDENTITY)
    found: list[KeySpan] = []
    for kind in sorted(kinds):
        if not kind.is_text:
            if query.match is not MatchMode.EXACT:
                raise BadQuery(f"a {kind.word} is searched for as a whole")
            found += [KeySpan(key, key) for key in _value_keys(kind, text, strict=bool(query.kinds))]
        elif query.match is MatchMode.EXACT:
            key = text_key(kind, text)
            found.append(KeySpan(key, key))
        else:
            found.append(_open_ended(kind, text, query.match))
    if not found:
        raise BadQuery(f"{text[:80]!r} is no {' and no '.join(kind.word for kind in sorted(kinds))}")
    return found


def guessed_match(text: str) -> MatchMode:
    """The comparison that a text implies: a prefix for a star at the end, a glob for a star elsewhere."""
    if "*" not in text:
        return MatchMode.EXACT
    return MatchMode.PREFIX if text.index("*") == len(text) - 1 and not text.endswith("\\*") else MatchMode.GLOB


def whole_name(text: str) -> str:
    """A name or pattern with the scheme of archived names: `github.com/acme/*` is `https://github.com/acme/*`.

    Certificates name a repository by its URL, and people write it without the scheme. Without this the answer would be
    "no entry, complete" although entries match.
    """
    return f"https://{text}" if text[:_LONGEST_HOST].lower().startswith(_PLACES) else text


def read_moment(text: str, now: datetime) -> datetime:
    """A day, a moment, or a time before `now` such as `30d`; without a zone it is UTC. Raises `BadQuery`."""
    try:
        if text[-1:] in _UNITS and text[:-1].isdecimal() and text.isascii() and len(text) <= _LONGEST_AGE:
            return now - int(text[:-1]) * _UNITS[text[-1]]
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise BadQuery(f"{text[:40]!r} is no moment: write 2026-01-31, 2026-01-31T12:00+00:00, or 30d") from None
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:
        raise BadQuery(f"{text[:40]!r} is before the year 1 or after the year 9999 in UTC") from None


def _open_ended(kind: KeyKind, text: str, match: MatchMode) -> KeySpan:
    glob = lowered(text if match is MatchMode.GLOB else "")
    head = glob_prefix(glob)[0] if match is MatchMode.GLOB else lowered(text.removesuffix("*"))
    low = text_key(kind, head) if len(head.encode()) <= LONGEST else b""
    if not low:
        raise BadQuery(f"at most {LONGEST} bytes of a value's beginning can be searched for")
    return KeySpan(low, _after(low), glob if match is MatchMode.GLOB else None)


def _after(low: bytes) -> bytes:
    """The first key after all keys that begin with `low`. It exists because the first byte, the kind, is small."""
    head = low.rstrip(b"\xff")
    return head[:-1] + bytes((head[-1] + 1,))


def _kinds_of(text: str, match: MatchMode) -> Iterable[KeyKind]:
    is_value = _is_hex(text) or text.startswith("SHA256:") or text.partition(":")[0].lower() in ALGORITHMS.values()
    if match is MatchMode.EXACT and is_value:
        return (KeyKind.DIGEST, KeyKind.FINGERPRINT)
    return TEXTS


def _is_hex(text: str) -> bool:
    plain = text.replace(":", "").replace(" ", "").lower()
    return len(plain) in ALGORITHMS and not set(plain) - _HEX_DIGITS


def _value_keys(kind: KeyKind, text: str, *, strict: bool) -> list[bytes]:
    algorithm, colon, value = text.partition(":")
    if kind is KeyKind.DIGEST:
        plain = value if colon and algorithm.lower() in ALGORITHMS.values() else text
        plain = plain.lower()
        if len(plain) in ALGORITHMS and not set(plain) - _HEX_DIGITS:
            return [value_key(kind, bytes.fromhex(plain))]
        if strict:
            raise BadQuery(f"{text[:80]!r} is no digest: write hexadecimal, or sha256:HEX")
        return []
    if text.startswith("SHA256:"):
        return [value_key(kind, fingerprint_bytes(text))]
    if algorithm.lower() in ALGORITHMS.values() and colon:
        text = value
    if not _is_hex(text):
        if strict:
            raise BadQuery(f"{text[:80]!r} is no fingerprint: write hexadecimal, or SHA256:BASE64")
        return []
    return [value_key(kind, bytes.fromhex(text.replace(":", "").replace(" ", "")))]
