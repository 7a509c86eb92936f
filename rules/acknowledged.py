"""Signings that a person acknowledged as a pattern: later ones by an equal signer are expected, until it is revoked.

A pattern is made from the signer of one finding and is never broader: every name and claim must be equal, except
those that differ from one build to the next (commit, run), and the ref if a glob was given. It overrides the reasons
of that finding and no others.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from rules.pattern import MAX_PATTERN, MAX_STARS, glob_matches, glob_prefix
from sigstore_entries.signing import NameForm, Signer

ID: Final = "acknowledged-pattern"
_REF: Final = "source_repository_ref"
_ONCE: Final = frozenset(
    {
        "build_config_digest",
        "build_signer_digest",
        "github_workflow_sha",
        "run_invocation_uri",
        "source_repository_digest",
    }
)
"""Claims that differ from one build of the same workflow to the next."""
_ANSWERED: Final = frozenset(
    {
        "authorised",
        "builder",
        "digests",
        "digests-from",
        "environment",
        "images",
        "issuer",
        "new-issuer",
        "no-expectations",
        "owner-identifier",
        "ref",
        "repository",
        "repository-identifier",
        "repository-identifier-changed",
        "runner",
        "trigger",
        "visibility",
        "workflow",
    }
)
"""Reasons about signer and artifact. A pattern never overrides reasons about rate, time, or parts that could not be
checked."""
_BRANCHES: Final = ("refs/tags/", "refs/heads/")


class NoPattern(ValueError):
    """No pattern can be made of this signing; the message gives the reason and the alternative."""


class SignerPattern(Struct, frozen=True):
    """Signers equal to one that was acknowledged. `number` is the pattern's own, 0 before it is stored.

    `names` (form, text) and `claims` must be equal; a text marked true ended with the ref, which is cut off. `ref`
    is a glob, or the ref itself. `reasons` are the ids of the reasons that it overrides.
    """

    names: tuple[tuple[str, str, bool], ...]
    issuer: str | None
    fingerprints: tuple[str, ...]
    claims: Mapping[str, tuple[str, bool]]
    ref: str | None
    is_glob: bool
    reasons: tuple[str, ...]
    number: int = 0

    def covers(self, signer: Signer, reasons: Collection[str]) -> bool:
        """True if the signer is equal, and the signing has no reason that the first one did not have.

        `reasons` are ids.
        """
        if signer.defects or not set(reasons) <= set(self.reasons):
            return False
        ref = signer.claims.get(_REF)
        if not self._covers_ref(ref) or signer.issuer != self.issuer:
            return False
        names = [(NameForm(each.form).value, each.value) for each in signer.names]
        if sorted(names) != sorted((form, _filled(text, is_cut, ref)) for form, text, is_cut in self.names):
            return False
        if not signer.claims and sorted(signer.fingerprints) != sorted(self.fingerprints):
            return False
        lasting = {name: value for name, value in signer.claims.items() if name not in _ONCE}
        return lasting == {name: _filled(*each, ref) for name, each in self.claims.items()}

    def _covers_ref(self, ref: str | None) -> bool:
        if self.is_glob and self.ref is not None:
            return ref is not None and glob_matches(self.ref, ref)
        return ref == self.ref

    def sentences(self) -> Iterator[str]:
        """Later signings that the pattern expects, in sentences for the person who decides."""
        ref = f"{{any {self.ref}}}" if self.is_glob else self.ref or ""
        if self.names:
            yield f"Signed by {', '.join(_filled(text, is_cut, ref) for _, text, is_cut in self.names)}"
        else:
            yield f"Signed with the key {', '.join(self.fingerprints[:1])}"
        if self.issuer is not None:
            yield f"Vouched for by {self.issuer}"
        if self.ref is not None:
            yield f"On {'any ref that matches ' if self.is_glob else ''}{self.ref}"
        if self.claims:
            yield f"With all {len(self.claims)} lasting claims of this signing's certificate"
        if self.ref is None:
            yield "For any artifact at any time: this signer's name restricts neither"
        yield f"Reasons against it: {', '.join(self.reasons)}, and no others"

    def document(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "names": [list(each) for each in self.names],
            "issuer": self.issuer,
            "fingerprints": list(self.fingerprints),
            "claims": {name: list(each) for name, each in sorted(self.claims.items())},
            "ref": self.ref,
            "is_glob": self.is_glob,
            "reasons": list(self.reasons),
        }


def pattern_from(document: Mapping[str, Any], number: int) -> SignerPattern:
    """Read what `document` wrote."""
    return SignerPattern(
        names=tuple((form, text, is_cut) for form, text, is_cut in document["names"]),
        issuer=document["issuer"],
        fingerprints=tuple(document["fingerprints"]),
        claims={name: (text, is_cut) for name, (text, is_cut) in document["claims"].items()},
        ref=document["ref"],
        is_glob=document["is_glob"],
        reasons=tuple(document["reasons"]),
        number=number,
    )


def pattern_of(signer: Signer, reasons: Collection[str], ref_glob: str | None = None) -> SignerPattern:
    """The pattern of one signer. `ref_glob` widens the ref within its branch of names (`refs/tags/`).

    Raises `NoPattern`.
    """
    if signer.defects:
        raise NoPattern("a part of this certificate or key cannot be read, so no pattern can be made of it")
    unanswered = sorted(set(reasons) - _ANSWERED)
    if unanswered or not reasons:
        raise NoPattern(
            f"{', '.join(unanswered) or 'nothing'} is a reason against this signing: it does not depend on the "
            "signer, so no pattern can override it"
        )
    ref = signer.claims.get(_REF)
    if ref_glob is not None:
        _check_glob(ref_glob, ref)
    repository = signer.claims.get("source_repository_uri", "")

    def cut(value: str, *, always: bool) -> tuple[str, bool]:
        ours = always or (bool(repository) and value.startswith(f"{repository}/"))
        is_cut = ref is not None and ours and value.endswith(ref)
        return (value[: -len(ref)], True) if is_cut and ref else (value, False)

    moving = {_REF, "github_workflow_ref", "token_subject"}
    return SignerPattern(
        names=tuple((NameForm(name.form).value, *cut(name.value, always=False)) for name in signer.names),
        issuer=signer.issuer,
        fingerprints=() if signer.claims else tuple(signer.fingerprints),
        claims={name: cut(value, always=name in moving) for name, value in signer.claims.items() if name not in _ONCE},
        ref=ref_glob if ref_glob is not None else ref,
        is_glob=ref_glob is not None,
        reasons=tuple(sorted(set(reasons))),
    )


def _check_glob(glob: str, ref: str | None) -> None:
    if ref is None:
        raise NoPattern("this signing names no ref, so there is none to widen")
    kind = next((each for each in _BRANCHES if ref.startswith(each)), None)
    prefix, _ = glob_prefix(glob)
    if kind is None or not prefix.startswith(kind):
        raise NoPattern(f"the ref was {ref}: a glob for it begins with {kind or 'refs/tags/ or refs/heads/'}")
    if len(glob) > MAX_PATTERN or glob.count("*") > MAX_STARS or not glob.isprintable():
        raise NoPattern("the glob is too long, or has too many stars")
    if not glob_matches(glob, ref):
        raise NoPattern(f"the glob {glob} does not match the ref that was seen, {ref}")


def _filled(text: str, is_cut: bool, ref: str | None) -> str:
    return text + (ref or "") if is_cut else text
