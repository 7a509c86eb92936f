"""Text patterns: exact by default, globs and RE2 regular expressions when asked for. All match the whole value.

Nothing here takes more than linear time in the value: globs compare their fixed pieces from left to right, regular
expressions run in RE2, never in `re`. On hosts of source repositories that ignore case, names are compared in any case.
"""

import functools
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

import re2
from msgspec import Struct
from msgspec.structs import replace

from settings.document import Misplaced, Node, YamlMapping
from settings.reading import Fields, read_flag, read_text
from sigstore_entries.signing import Signer

MAX_PATTERN: Final = 1_000
REGEX_MEMORY: Final = 1 << 20  # bytes RE2 may use for one compiled pattern
MAX_STARS: Final = 32


class PatternForm(StrEnum):
    """Syntax of a pattern's text."""

    EXACT = "exact"
    GLOB = "glob"
    REGEX = "regex"


class Pattern(Struct, frozen=True, gc=False):
    """One pattern. `ignore_case` folds A-Z only, because folding other characters can change lengths."""

    form: PatternForm
    text: str
    ignore_case: bool = False

    def matches(self, value: str) -> bool:
        """True if the whole of `value` matches."""
        if self.form is PatternForm.EXACT:
            return self.text == value or (self.ignore_case and fold(self.text) == fold(value))
        if self.form is PatternForm.GLOB:
            return glob_matches(fold(self.text), fold(value)) if self.ignore_case else glob_matches(self.text, value)
        compiled = compile_regex(self.text, self.ignore_case)
        return compiled.fullmatch(value.encode("utf-8", "replace")) is not None

    def __str__(self) -> str:
        shown = self.text if self.form is PatternForm.EXACT else f"{self.form}:{self.text}"
        return f"{shown} (any case)" if self.ignore_case else shown


def any_of(patterns: Sequence[Pattern]) -> str:
    """Patterns as a sentence names them: `a or b`."""
    return str(patterns[0]) if len(patterns) == 1 else " or ".join(map(str, patterns))


def exact(text: str) -> Pattern:
    """A pattern that only `text` itself matches."""
    return Pattern(PatternForm.EXACT, text)


def fold(text: str) -> str:
    """`text` with A-Z lowered and everything else as it was."""
    return text.lower() if text.isascii() else "".join(c.lower() if c.isascii() else c for c in text)


@functools.lru_cache(maxsize=4096)
def compile_regex(text: str, ignore_case: bool) -> Any:
    """Compile with RE2. Raises `ValueError` when RE2 refuses the pattern or it needs too much memory."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = REGEX_MEMORY
    options.never_capture = True
    options.dot_nl = True  # a line break in a hostile name must not slip past `.*`
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(text.encode(), options)
    except re2.error as error:
        reason = error.args[0] if error.args else "refused"
        raise ValueError(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None


class _Any:
    """One `*` of a glob."""


_STAR: Final = _Any()


def glob_pieces(text: str) -> list[str | _Any]:
    r"""Split a glob into fixed text and stars. `\*` and `\\` are a literal star and backslash; `?` is ordinary."""
    pieces: list[str | _Any] = []
    literal: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\" and text[position + 1 : position + 2] in ("*", "\\"):
            literal.append(text[position + 1])
            position += 2
            continue
        if char != "*":
            literal.append(char)
        else:
            if literal:
                pieces.append("".join(literal))
                literal = []
            if not pieces or pieces[-1] is not _STAR:
                pieces.append(_STAR)
        position += 1
    if literal:
        pieces.append("".join(literal))
    return pieces


def glob_literals(text: str) -> list[str]:
    """The fixed pieces of a glob, in order."""
    if "\\" not in text:
        return [piece for piece in text.split("*") if piece]
    return [piece for piece in glob_pieces(text) if isinstance(piece, str)]


def glob_prefix(text: str) -> tuple[str, bool]:
    """The fixed text that a glob begins with, and whether there is a star behind it."""
    if "\\" not in text:
        prefix, star, _ = text.partition("*")
        return prefix, bool(star)
    first, *rest = glob_pieces(text)
    return (first, bool(rest)) if isinstance(first, str) else ("", True)


@functools.lru_cache(maxsize=4096)
def _glob_parts(text: str) -> tuple[str, tuple[str, ...], str, bool]:
    pieces = glob_pieces(text)
    if all(isinstance(piece, str) for piece in pieces):
        return "".join(str(piece) for piece in pieces), (), "", False
    head = pieces.pop(0) if isinstance(pieces[0], str) else ""
    tail = pieces.pop() if isinstance(pieces[-1], str) else ""
    middle = tuple(piece for piece in pieces if isinstance(piece, str))
    return str(head), middle, str(tail), True


def glob_matches(text: str, value: str) -> bool:
    """True if `value` matches a glob whose `*` stands for any characters, `/` included."""
    head, middle, tail, has_star = _glob_parts(text)
    if not has_star:
        return value == head
    if len(value) < len(head) + len(tail) or not value.startswith(head) or not value.endswith(tail):
        return False
    position, end = len(head), len(value) - len(tail)
    for piece in middle:
        # With nothing but stars between the pieces, taking each at its first place never loses a match.
        found = value.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


def read_pattern(node: Node) -> Pattern:
    """Read `text`, `{exact: text}`, `{glob: text}` or `{regex: text}`, the latter three with `ignore_case: true`."""
    if not isinstance(node, YamlMapping):
        return exact(read_text(node))
    forms = [form.value for form in PatternForm]
    fields = Fields(node, [*forms, "ignore_case"], "a pattern")
    given = [form for form in forms if fields.get(form) is not None]
    if len(given) != 1:
        raise Misplaced("a pattern has exactly one of: exact, glob, regex", node)
    value = fields.need(given[0])
    text = read_text(value)
    pattern = Pattern(PatternForm(given[0]), text, fields.read("ignore_case", read_flag, default=False))
    _check(pattern, value)
    return pattern


def _check(pattern: Pattern, node: Node) -> None:
    if len(pattern.text) > MAX_PATTERN:
        raise Misplaced(f"a pattern is at most {MAX_PATTERN} characters", node)
    if pattern.form is PatternForm.GLOB and pattern.text.count("*") > MAX_STARS:
        raise Misplaced(f"a glob has at most {MAX_STARS} stars", node)
    if pattern.form is PatternForm.REGEX:
        try:
            compile_regex(pattern.text, pattern.ignore_case)
        except ValueError as error:
            raise Misplaced(f"not a regular expression that RE2 reads: {error}", node) from None


GITHUB: Final = "https://github.com"
GITLAB: Final = "https://gitlab.com"
GHE_CLOUD: Final = ".ghe.com"  # GitHub Enterprise Cloud with data residency
GITHUB_ISSUER: Final = "https://token.actions.githubusercontent.com"

# GitHub, GitLab and GitHub Enterprise Cloud find a name in any case, and certificates carry the one it was given.
_ANY_CASE = re.compile(r"https://(github\.com|gitlab\.com|[a-z0-9-]+\.ghe\.com)/", re.ASCII | re.IGNORECASE)
# An owner or a repository, by itself or with everything in it: no path or ref, whose case does matter.
_NAMES_ONLY = re.compile(r"https://[^/*]+/[^/*]+(/[^/*]+)?(/\*+)?")
NAME_FIELDS: Final = frozenset(
    {"identity", "source_repository_uri", "source_repository_owner_uri", "build_signer_uri", "build_config_uri"}
)


class Forge(StrEnum):
    """Software that a host of repositories runs."""

    GITHUB = "github"
    GITLAB = "gitlab"
    UNKNOWN = "unknown"


def forge_of(uri: str) -> Forge:
    """The software of a URI's host, as far as the host's name shows."""
    host = uri.removeprefix("https://").partition("/")[0].partition(":")[0].lower()
    words = set(re.split(r"[.-]", host))
    if words & {"github", "ghe", "ghes"}:
        return Forge.GITHUB
    return Forge.GITLAB if "gitlab" in words else Forge.UNKNOWN


def build_issuers(host: str) -> tuple[str, ...]:
    """Issuers of builds on a host: both GitHub Enterprise Server's and GitLab's if the name shows neither."""
    url = f"https://{host}"
    if url == GITHUB:
        return (GITHUB_ISSUER,)
    if host.endswith(GHE_CLOUD):
        return (f"https://token.actions.{host}",)
    servers = {Forge.GITHUB: f"{url}/_services/token", Forge.GITLAB: url}
    forge = forge_of(f"{url}/")
    return (servers[forge],) if forge in servers else tuple(servers.values())


def names_ignore_case(uri: str) -> bool:
    """True if names of owners and repositories on this URI's host are case-insensitive."""
    return _ANY_CASE.match(uri) is not None


def as_selected(field: str, pattern: Pattern, *, negated: bool) -> Pattern:
    """The pattern as `select` compares it: names on known hosts in any case.

    Paths and refs are then compared in any case too. This selects more, never less, so negations do not use it.
    """
    if field == "github_workflow_repository":
        return replace(pattern, ignore_case=True)
    if field not in NAME_FIELDS or pattern.form is PatternForm.REGEX or not names_ignore_case(pattern.text):
        return pattern
    if negated and not _NAMES_ONLY.fullmatch(pattern.text):
        return pattern
    return replace(pattern, ignore_case=True)


def spelled_like(pattern: Pattern, uri: str) -> Pattern:
    """The pattern with the repository spelled as in a claim's URI when it is the same one; the rest keeps its case."""
    if pattern.form is PatternForm.REGEX or not names_ignore_case(uri):
        return pattern
    scheme, _, rest = uri.partition("//")
    project, slashes, _ = rest.partition("//")  # GitLab puts two slashes between the project and the path
    head = f"{scheme}//{project}//" if slashes else "/".join(uri.split("/", 5)[:5]) + "/"
    if not fold(pattern.text).startswith(fold(head)):
        return pattern
    return replace(pattern, text=head + pattern.text[len(head) :])


def source_repository(signer: Signer) -> str | None:
    """URI of the source repository on the issuer's host; `None` when the certificate has none.

    Fulcio until September 2026 writes `https://gitlab.com` into this claim for a self-managed GitLab as well, whose
    issuer is the URL of its host.
    """
    uri, issuer = signer.claims.get("source_repository_uri"), signer.issuer
    if uri is None or issuer is None or issuer == GITLAB or not uri.startswith(GITLAB + "/"):
        return uri
    built_there = signer.claims.get("build_config_uri", "").startswith(issuer + "/")
    return issuer + uri[len(GITLAB) :] if built_there else uri


def repository_key(signer: Signer) -> str | None:
    """Name under which the past of a repository is kept: the same before and after Fulcio names the repository's host.

    In lower case where the host ignores case, or else a repository made again as `Acme/widget` would be a first one.
    """
    uri = source_repository(signer)
    return fold(uri) if uri is not None and names_ignore_case(uri) else uri


def github_repository(signer: Signer) -> str | None:
    """URI of the repository in GitHub's older claim, `owner/name`, on the host that the certificate names."""
    name = signer.claims.get("github_workflow_repository")
    if name is None or "://" in name:
        return name
    uris = [signer.claims.get("source_repository_uri", ""), *(each.value for each in signer.names)]
    origins = ["/".join(uri.split("/", 3)[:3]) for uri in uris if uri.startswith("https://")]
    if not origins and signer.issuer == GITHUB_ISSUER:
        origins = [GITHUB]
    return f"{origins[0]}/{name}" if origins else name
