"""A name that a person looks up: a repository, an owner, an e-mail address, a key's fingerprint or a digest.

Each signing is filed under the names in `rules.selection.names_of`; a subject is looked up under `Subject.key`. Both
are in lower case: GitHub, GitLab and mail servers take names in any case, and a look-alike in another case must not
hide.
"""

import difflib
import re
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from rules.selection import MAX_SEGMENTS, REPOSITORY_SEGMENTS, normal_digest, normal_fingerprint

MAX_TEXT: Final = 400
HOSTS: Final = ("github.com", "gitlab.com", "codeberg.org", "bitbucket.org")
_MAILS: Final = (
    "gmail.com",
    "googlemail.com",
    "outlook.com",
    "hotmail.com",
    "proton.me",
    "yahoo.com",
    "icloud.com",
)
_HOST = re.compile(r"(?=.{4,190}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.~-]{0,99}", re.ASCII)
_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?P<host>[A-Za-z0-9.-]{3,190})", re.ASCII)
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)
_FINGERPRINT_SIZES: Final = frozenset({40, 64})
_SHA256_HEX: Final = 64


class SubjectKind(StrEnum):
    """Kind of name."""

    REPOSITORY = "repository"
    OWNER = "owner"
    EMAIL = "email"
    FINGERPRINT = "fingerprint"
    DIGEST = "digest"


class NotASubject(ValueError):
    """The text is no name to look up. `repair` is the likely correction, or empty."""

    def __init__(self, message: str, repair: str = "") -> None:
        super().__init__(message)
        self.repair = repair


class Subject(Struct, frozen=True):
    """A name in its normal form: a repository or owner as `https://host/path`, a digest as `sha256:…`.

    `read_subject` reads `text` as the same name again.
    """

    kind: SubjectKind
    text: str

    @property
    def key(self) -> str:
        """The name under which signings are stored."""
        return normal_fingerprint(self.text) if self.kind is SubjectKind.FINGERPRINT else self.text.lower()

    @property
    def title(self) -> str:
        """Title on a page."""
        if self.kind in (SubjectKind.REPOSITORY, SubjectKind.OWNER):
            parts = urlsplit(self.text)
            path = parts.path.strip("/")
            return path if parts.hostname in HOSTS else f"{parts.hostname}/{path}"
        return self.text

    @property
    def host(self) -> str:
        """Host of a repository or owner, empty otherwise."""
        return urlsplit(self.text).hostname or "" if "://" in self.text else ""

    def select(self) -> dict[str, Any]:
        """The `select` of a rule for every signing in this name."""
        match self.kind:
            case SubjectKind.REPOSITORY | SubjectKind.OWNER:
                inside = {"glob": f"{_escaped(self.text)}/*", "ignore_case": "true"}
                claim = (
                    "source_repository_uri" if self.kind is SubjectKind.REPOSITORY else "source_repository_owner_uri"
                )
                return {"any": [{"identity": inside}, {claim: {"exact": self.text, "ignore_case": "true"}}]}
            case SubjectKind.EMAIL:
                return {"identity": {"exact": self.text, "ignore_case": "true"}}
            case SubjectKind.FINGERPRINT:
                return {"fingerprint": self.text}
            case _:
                return {"digest": self.text}


def read_subject(text: str) -> Subject:
    """Read what a person typed or pasted. Raises `NotASubject`, with the likely repair of a mistyped name."""
    given = "".join(text.split())
    if not given:
        raise NotASubject("Write a repository URL, an e-mail address, a key fingerprint or a digest.")
    if len(text) > MAX_TEXT or not text.isprintable():
        raise NotASubject(f"That is longer than {MAX_TEXT} characters or holds control characters.")
    if (subject := _value(given)) is not None:
        return subject
    if "@" in given and "://" not in given and not given.startswith("git@"):
        return _email(given)
    return _repository(given)


def _value(given: str) -> Subject | None:
    """A digest or a fingerprint; `None` for anything else."""
    if given.startswith("SHA256:"):
        return Subject(SubjectKind.FINGERPRINT, given[:60])
    lowered = given.lower()
    algorithm, colon, _ = lowered.partition(":")
    if colon and algorithm in ("sha1", "sha224", "sha256", "sha384", "sha512"):
        try:
            return Subject(SubjectKind.DIGEST, normal_digest(given))
        except ValueError as error:
            raise NotASubject(f"{error}.") from None
    plain = normal_fingerprint(given)
    if _HEX.fullmatch(plain) and len(plain) in _FINGERPRINT_SIZES:
        is_digest = len(plain) == _SHA256_HEX and ":" not in given
        if is_digest:
            return Subject(SubjectKind.DIGEST, f"sha256:{plain}")
        # A normal form is read again from links and stored subscriptions: without colons it would be a digest there.
        text = bytes.fromhex(plain).hex(":") if len(plain) == _SHA256_HEX else plain
        return Subject(SubjectKind.FINGERPRINT, text)
    return None


def _email(given: str) -> Subject:
    repaired = given.strip("<>,;.").replace(",", ".").replace("mailto:", "")
    match = _EMAIL.fullmatch(repaired)
    if match is None or not _HOST.fullmatch(match["host"].lower()):
        raise NotASubject(
            "That looks like an e-mail address, but no mail could reach it. One looks like release@acme.example."
        )
    local, _, host = repaired.rpartition("@")
    near = _near(host.lower(), _MAILS)
    if repaired != given or near:
        raise NotASubject("No mail server has that name, or a character is out of place.", f"{local}@{near or host}")
    return Subject(SubjectKind.EMAIL, f"{local}@{host.lower()}")


def _repository(given: str) -> Subject:
    address, was_repaired = _address(given)
    host, _, path = address.partition("/")
    host = host.lower().removeprefix("www.").rstrip(".")
    near = _near(host, HOSTS)
    path = path.split("?")[0].split("#")[0].split("/-/")[0].split("//.")[0]
    segments = [part for part in path.split("/") if part]
    if host in HOSTS and segments:
        segments = segments[: 2 if host == "github.com" else MAX_SEGMENTS]
    if segments:
        segments[-1] = segments[-1].split("@")[0].removesuffix(".git")
    if not _HOST.fullmatch(host) and len(segments) <= 1:
        whole = [part for part in given.split("/") if part]
        if len(whole) == REPOSITORY_SEGMENTS and all(_PART.fullmatch(part) for part in whole):
            raise NotASubject(f"{given} could be on any host.", f"https://github.com/{'/'.join(whole)}")
        raise NotASubject(
            "That is no repository URL, e-mail address, fingerprint or digest. A repository is written as "
            "https://github.com/acme/widget."
        )
    if not _HOST.fullmatch(host) or not all(_PART.fullmatch(part) for part in segments):
        raise NotASubject("That is not the address of a repository, such as https://github.com/acme/widget.")
    if not segments:
        raise NotASubject(f"{host} alone would match a large part of every log. Name an owner or a repository on it.")
    if len(segments) > MAX_SEGMENTS:
        raise NotASubject("That path is too long for a repository.")
    found = f"https://{near or host}/{'/'.join(segments)}"
    if near or was_repaired:
        raise NotASubject("That address has a slip in it." if was_repaired else f"There is no {host} we know.", found)
    kind = SubjectKind.REPOSITORY if len(segments) >= REPOSITORY_SEGMENTS else SubjectKind.OWNER
    return Subject(kind, found)


def _address(given: str) -> tuple[str, bool]:
    """`host/path` of a copied URL, and whether it is a guess."""
    text = given.replace("\\", "/")
    lowered = text.lower()
    for prefix in ("https://", "http://", "ssh://git@", "git+https://", "git://"):
        if lowered.startswith(prefix):
            return text[len(prefix) :], "\\" in given
    if lowered.startswith("git@"):
        host, _, path = text[4:].partition(":")
        return f"{host}/{path}", False
    scheme = re.match(r"[a-z]{3,7}[:;]?/{1,3}(?=[a-z0-9-]+\.)", lowered)
    if scheme is not None:
        return text[scheme.end() :], True
    return text, "\\" in given


def _near(host: str, known: tuple[str, ...]) -> str:
    """The well-known host that `host` most likely misspells; empty when it is one itself or resembles none."""
    if host in known:
        return ""
    return next(iter(difflib.get_close_matches(host, known, n=1, cutoff=0.88)), "")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("*", "\\*")
