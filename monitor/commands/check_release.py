"""`signwatch check-image` and `check-commit`: the signers, their log entries, the verdicts, and further log entries."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from msgspec import Struct

from addresses.image_name import BadImageName, ImageName, parse_image_name
from alerts.alert import counted, rfc3339
from monitor.commands.check_bundle import BundleResult, ConfiguredTrees, check_held
from monitor.commands.git_objects import GitObject, read_object
from monitor.commands.rules_on_entries import judging
from monitor.commands.search import archive_of
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say, say_json, table
from monitor.config import Config, load_config
from monitor.crosscheck.bundle_check import BundleRelation, CrossCheck
from monitor.crosscheck.bundle_promises import PromiseCheck
from monitor.crosscheck.bundles import BadBundle
from monitor.crosscheck.signature_check import (
    CheckedSignature,
    SignatureTrust,
    UnusableSignature,
    signatures_of,
    verify,
    verify_certificate,
    verify_message,
)
from monitor.daemon.trust_watch import trust_of
from monitor.judging.active_rules import route_of
from monitor.judging.rule_file import read_rules
from monitor.model.errors import FetchFailed
from monitor.model.state import Hit
from monitor.program import utc_now
from monitor.store.database import open_database
from monitor.store.reading import Reading
from monitor.store.store import Store
from outbound.registry import Registry, RegistryFailed
from rules.rule import Outcome
from rules.selection import digest_text
from sigstore_entries.bundle_file import HeldBundle, NoBundle, decoded
from sigstore_entries.certificate import read_certificate
from sigstore_entries.entry import decode_rekor
from sigstore_entries.git_signature import NoGitSignature, read_git_signature
from sigstore_entries.image_signature import Found
from sigstore_entries.release import Release, released_commit, released_image, sha256
from sigstore_entries.signing import EntryRef, Signing
from tlog.merkle import leaf_hash

_MOST_OTHERS: Final = 1_000
_IN_LOG: Final = frozenset({BundleRelation.CONSISTENT})


class _Row(Struct, frozen=True):
    """Result for one signature, or for one log entry to which no signature here belongs.

    `in_log` is `yes`, or `no` or `unknown` with a reason; `expected` an outcome with the rules, or the reason why
    there is none.
    """

    place: str
    what: str
    signers: tuple[str, ...]
    issuer: str | None
    signed_at: str | None
    entry: str | None
    in_log: str
    expected: str
    problem: str | None
    code: Exit

    def document(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "place": self.place,
            "what": self.what,
            "signers": list(self.signers),
            "issuer": self.issuer,
            "signed_at": self.signed_at,
            "entry": self.entry,
            "in_log": self.in_log,
            "expected": self.expected,
            "problem": self.problem,
        }


class _Checker:
    """Checks signatures one after the other, and remembers the log entries that belong to them."""

    def __init__(self, config: Config, parts: ExitStack, *, offline: bool) -> None:
        self._config = config
        database = open_database(config.database)
        parts.callback(database.close)
        self._store = Store(database, clock=utc_now, route=route_of(config, None))
        self._reading = Reading(database)
        self._trust = trust_of(config.trust, utc_now, self._store)
        trees = ConfiguredTrees(config, self._trust, self._store, parts)
        self._checker = CrossCheck(self._store, utc_now, None if offline else trees.find)
        self._promises = PromiseCheck(self._store, utc_now, None if offline else trees.find_all)
        self._rules = [each.id for each in read_rules(config.rules, config.channels).rules]
        authorities, ct_keys = self._trust.authorities()
        self.trusted = SignatureTrust(self._trust.history().followable(), authorities, ct_keys)
        self._bodies: dict[bytes, None] = {}
        self._digests: dict[str, None] = {}
        self._parts = parts

    def check(self, place: str, held: HeldBundle, verified: CheckedSignature) -> _Row:
        """The row of a bundle: its entry in the log, and the verdict of the rules on it."""
        bodies = [decoded(each.get("canonicalizedBody"), "the entry") for each in held.entries]
        self._bodies |= dict.fromkeys(bodies)
        self._digests |= dict.fromkeys(digest_text(each.digests[0]) for each in verified.entries if each.digests)
        try:
            checked = list(check_held(Path(place), held, self._trust, self._checker, self._promises))
        except BadBundle as bad:
            return _row(place, verified, None, f"no: {bad}", "not judged", None, Exit.UNFINISHED)
        entry, in_log, code = _in_log(checked)
        expected, judged = self._expected(bodies, verified)
        return _row(place, verified, entry, in_log, expected, None, max(code, judged, key=_badness))

    def _expected(self, bodies: Sequence[bytes], verified: CheckedSignature) -> tuple[str, Exit]:
        """The verdict that was recorded when the log showed the entry; else the one that it would get now."""
        digests = [digest_text(each) for signing in verified.entries for each in signing.digests]
        recorded = [
            (each.rule, each.outcome, "; ".join(str(reason.get("sentence")) for reason in each.reasons))
            for each in self._reading.signings_of(self._rules, digests, _MOST_OTHERS, bodies)
        ]
        if not recorded:
            with judging(self._config) as (judge, held, _):
                for body, signing in zip(bodies, verified.entries, strict=True):
                    matches = held.matcher.confirm_all(signing)
                    hit = Hit(matches.signing, tuple(rule.id for rule in matches.rules), body)
                    recorded += [
                        (each.rule, each.verdict.outcome.value, "; ".join(r.sentence for r in each.verdict.reasons))
                        for each in judge.judge([hit], utc_now())
                    ]
        if not recorded:
            return "no rule selects it", Exit.FINE
        told = [f"{outcome} ({rule}{': ' + why if why else ''})" for rule, outcome, why in dict.fromkeys(recorded)]
        is_unexpected = any(outcome == Outcome.UNEXPECTED.value for _, outcome, _ in recorded)
        return "; ".join(told), Exit.MISBEHAVED if is_unexpected else Exit.FINE

    def check_elsewhere(self, place: str, held: HeldBundle, message: bytes, subject: str) -> _Row:
        """A signature without its log entry: looks for the entry of the same certificate over `subject`.

        gitsign's online mode enters the commit's id, signed once more. Raises `UnusableSignature`.
        """
        leaf = held.certificates[0]
        findings = self._reading.signings_of(self._rules, [subject], _MOST_OTHERS + 1)
        logged = [each for each in findings[:_MOST_OTHERS] if leaf in _certificates_in(each.leaf)]
        what = f"{place} signature"
        if not logged:
            # The certificate has a validity, but no log or authority signed the time of its use.
            began = [each for each in (read_certificate(leaf).not_before,) if each is not None]
            verified = verify_certificate(held, message, what, began, self.trusted)
            why = "unknown: it holds no log entry, and no entry that a rule selects has its id"
            if len(findings) > _MOST_OTHERS:
                why = (
                    f"unknown: it holds no log entry, and the first {_MOST_OTHERS:,} findings with its id are of others"
                )
            return _row(place, verified, None, why, "not judged", None, Exit.UNFINISHED)
        times = [at for each in logged for at in _times_of(each.signing)]
        verified = verify_certificate(held, message, what, times, self.trusted)
        self._bodies |= dict.fromkeys(each.leaf for each in logged)
        told = "; ".join(f"{each.outcome} ({each.rule})" for each in logged)
        is_unexpected = any(each.outcome == Outcome.UNEXPECTED.value for each in logged)
        where = f"{logged[0].log}:{logged[0].index}"
        return _row(place, verified, where, "yes", told, None, Exit.MISBEHAVED if is_unexpected else Exit.FINE)

    def others(self, release: Release) -> Iterator[_Row]:
        """Log entries about the same artifact that belong to none of the checked signatures."""
        digests = list(dict.fromkeys([*release.digests, *self._digests]))
        seen = {leaf_hash(body) for body in self._bodies}
        findings = self._reading.signings_of(self._rules, digests, _MOST_OTHERS + 1)
        for each in findings[:_MOST_OTHERS]:
            leaf = leaf_hash(each.leaf)
            if leaf in seen:
                continue
            seen.add(leaf)
            names = tuple(
                str(name["value"]) for signer in each.signing["signers"] for name in signer.get("names") or ()
            )
            code = Exit.MISBEHAVED if each.outcome == Outcome.UNEXPECTED.value else Exit.FINE
            told = f"{each.outcome} ({each.rule})"
            where = f"{each.log}:{each.index}"
            yield _Row("only in the log", "signature", names, None, None, where, "yes", told, None, code)
        if len(findings) > _MOST_OTHERS:
            yield _unread(
                "the log", f"more than {_MOST_OTHERS:,} findings have its digests: the rest was not looked at"
            )
        yield from self._archived(digests, seen)

    def _archived(self, digests: Sequence[str], seen: set[Any]) -> Iterator[_Row]:
        if self._config.archive is None:
            return
        from monitor.archive.query import Query  # noqa: PLC0415  loads pyarrow, which only an archive needs

        archive = archive_of(self._config)
        for digest in digests:
            answer = archive.search(Query(digest, limit=_MOST_OTHERS))
            for row in answer.rows:
                if bytes.fromhex(row.leaf_hash) in seen:
                    continue
                seen.add(bytes.fromhex(row.leaf_hash))
                names = row.identities or row.fingerprints
                where = f"{row.log}:{row.index}"
                told = "no rule selects it"
                yield _Row("only in the log", "signature", names, None, None, where, "yes", told, None, Exit.FINE)
            if answer.cut:
                yield _unread("the archive", f"{counted(answer.cut, 'more entry')} with {digest}: not looked at")
            for log in answer.coverage.logs:
                if log.damaged:
                    yield _unread("the archive", log.sentence())
            for name, why in answer.coverage.unread:
                yield _unread("the archive", f"{name}: {why}")

    def coverage(self) -> str:
        """Entries that `others` can know of."""
        followed = ", ".join(
            f"{name} up to {each.position.frontier.size}" for name, each in sorted(self._reading.followed().items())
        )
        known = "entries that a rule selects" if self._config.archive is None else "archived entries"
        return f"other signatures are looked for among {known}, in {followed or 'no log: none is followed yet'}"


def check_image(
    name: Annotated[str, typer.Argument(help="The image, by digest or tag.", metavar="REGISTRY/NAME[:TAG|@sha256:…]")],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Send no request to a log; the registry still gets requests.")
    ] = False,
    allow_http: Annotated[bool, typer.Option("--allow-http", help="Ask the registry without TLS.")] = False,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=3600, help="Time limit for all of the registry's answers.")
    ] = 120,
    as_json: JsonOption = False,
) -> None:
    """Show for each signature of an image its signer, whether the log has it, and whether the rules expect it.

    Signatures and attestations come from the registry: OCI 1.1 referrers, and the tags that cosign used before its
    version 3. The command verifies each: key, image, certificate, time, log entry. It also lists entries in the
    followed logs that belong to no signature in the registry. It uses the logins of `docker login`.

    Exits 0 when every signature verifies, is in the log and is not unexpected; 1 when one is unexpected or a log
    misbehaved; 3 when there is no signature, one proves nothing, a log or registry did not answer, or some entries
    were not looked at.

    Examples:
      signwatch check-image ghcr.io/acme/widget@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      signwatch check-image localhost:5000/widget:v1.4.2 --json
    """
    settings = load_config(config)
    try:
        image = parse_image_name(name)
    except BadImageName as error:
        raise typer.BadParameter(str(error)) from error
    with ExitStack() as parts:
        checker = _Checker(settings, parts, offline=offline)
        registry = parts.enter_context(Registry(image, plain_http=allow_http, seconds=seconds))
        try:
            manifest = registry.manifest(image.digest or image.tag or "latest")
            held = signatures_of(registry, manifest)
        except RegistryFailed as error:
            raise FetchFailed(str(error)) from error
        exact = image.at(manifest.digest)
        rows = [_checked_image(checker, each, exact) for each in held.found]
        rows += [_unread(place, why) for place, why in held.unread]
        release = released_image(exact)
        rows += checker.others(release)
        told = checker.coverage()
    if held.left_out:
        note(f"not looked at: {counted(held.left_out, 'more signature')}", "yellow")
    more = {"not_looked_at": held.left_out, "other_referrers": held.others}
    _tell(release, rows, told, as_json=as_json, more=more, unfinished=bool(held.left_out) or not held.found)


def check_commit(
    revision: Annotated[str, typer.Argument(help="Commit or annotated tag.", metavar="REV")],
    repository: Annotated[Path, typer.Option("--repo", "-C", help="The repository.", file_okay=False)] = Path(),
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Send no request to a log.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show for a signed commit or tag its signer, whether the log has it, and whether the rules expect it.

    The command reads signatures by gitsign and `sign-lite git`. It takes the log entry from the commit, or looks for
    the commit's id among the entries of the followed logs. Exit codes are those of `check-image`.

    Examples:
      signwatch check-commit HEAD
      signwatch check-commit v1.4.2 -C ../widget --json
    """
    settings = load_config(config)
    found = read_object(repository, revision)
    with ExitStack() as parts:
        checker = _Checker(settings, parts, offline=offline)
        rows: list[_Row] = []
        attributes = None
        try:
            signature = read_git_signature(found.raw)
            attributes = signature.signed_attributes
            held = signature.as_bundle()
            if signature.entry is None:
                rows.append(_checked_elsewhere(checker, held, attributes, found))
            else:
                rows.append(_checked_commit(checker, held, attributes, found.kind))
        except NoGitSignature as error:
            rows.append(_unread(found.kind, str(error)))
        release = released_commit(found.id, attributes, found.kind)
        others = list(checker.others(release))
        told = checker.coverage()
    rows += others
    is_logged = any(each.in_log == "yes" for each in rows)
    _tell(release, rows, told, as_json=as_json, more={}, unfinished=not is_logged)


def _checked_image(checker: _Checker, found: Found, image: ImageName) -> _Row:
    try:
        return checker.check(found.place, found.held, verify(found, str(image.digest), checker.trusted))
    except (UnusableSignature, NoBundle) as error:
        return _unread(found.place, str(error))


def _checked_commit(checker: _Checker, held: HeldBundle, message: bytes, kind: str) -> _Row:
    try:
        return checker.check(kind, held, verify_message(held, message, f"{kind} signature", checker.trusted))
    except (UnusableSignature, NoBundle) as error:
        return _unread(kind, str(error))


def _checked_elsewhere(checker: _Checker, held: HeldBundle, message: bytes, found: GitObject) -> _Row:
    try:
        return checker.check_elsewhere(found.kind, held, message, sha256(found.id.encode()))
    except (UnusableSignature, NoBundle) as error:
        return _unread(found.kind, str(error))


def _certificates_in(body: bytes) -> list[bytes | None]:
    told = decode_rekor(body, EntryRef("", 0))
    return [each.certificate for each in told.signers] if isinstance(told, Signing) else []


def _times_of(signing: Mapping[str, Any]) -> Iterator[datetime]:
    """Times at which a stored signing was logged; its certificate's start if the log states none (Rekor v2)."""
    for each in signing.get("times") or ():
        yield datetime.fromisoformat(str(each["at"]))


def _row(  # noqa: PLR0917
    place: str,
    verified: CheckedSignature,
    entry: str | None,
    in_log: str,
    expected: str,
    problem: str | None,
    code: Exit,
) -> _Row:
    at = None if verified.at is None else rfc3339(verified.at)
    return _Row(place, verified.what, verified.signers, verified.issuer, at, entry, in_log, expected, problem, code)


def _unread(place: str, why: str) -> _Row:
    return _Row(place, "-", (), None, None, None, "-", "-", why, Exit.UNFINISHED)


def _in_log(checked: Sequence[BundleResult]) -> tuple[str | None, str, Exit]:
    """The entry's index, whether the log is shown to have it, and the exit code that follows."""
    # Promises of CT logs are about the certificate: they say nothing about this entry.
    about = [each for each in checked if each.view is not None] or [
        each for each in checked if each.promised is not None and each.promised.promise.index is not None
    ]
    where = next((f"{each.log}:{each.index}" for each in about if each.index is not None), None)
    if any(each.verdict.relation is BundleRelation.CONTRADICTION for each in checked):
        told = next(each for each in checked if each.verdict.relation is BundleRelation.CONTRADICTION)
        return where, f"no: the log contradicts itself: {told.verdict.detail}", Exit.MISBEHAVED
    if not about:
        first = next((each.verdict.detail for each in checked if not each.is_promise), "it has no log entry")
        return None, f"no: {first}", Exit.UNFINISHED
    if all(each.verdict.relation in _IN_LOG for each in about):
        return where, "yes", Exit.FINE
    open_one = next(each for each in about if each.verdict.relation not in _IN_LOG)
    # Its proof leads to a head that the log signed, which holds without a request.
    proven = "proven by the bundle; " if open_one.view is not None else ""
    return where, f"unknown: {proven}{open_one.verdict.detail}", Exit.UNFINISHED


def _badness(code: Exit) -> int:
    return (Exit.FINE, Exit.UNFINISHED, Exit.MISUSED, Exit.MISBEHAVED).index(code)


def _tell(
    release: Release, rows: Sequence[_Row], coverage: str, *, as_json: bool, more: dict[str, int], unfinished: bool
) -> None:
    codes = [each.code for each in rows] + ([Exit.UNFINISHED] if unfinished else [])
    code = max(codes, key=_badness, default=Exit.UNFINISHED)
    if as_json:
        say_json({"of": release.what, "signatures": [each.document() for each in rows], "coverage": coverage, **more})
        raise leave(code)
    say(release.what, "bold")
    columns = ("where", "what", "signed by", "login from", "at", "entry", "in the log", "expected")
    table(columns, [_cells(each) for each in rows])
    for line in _sentences(rows):
        note(line, "yellow")
    note(coverage)
    raise leave(code)


def _cells(row: _Row) -> tuple[object, ...]:
    told = row.problem or row.expected
    return row.place, row.what, ", ".join(row.signers) or None, row.issuer, row.signed_at, row.entry, row.in_log, told


def _sentences(rows: Iterable[_Row]) -> Iterator[str]:
    rows = list(rows)
    if not any(each.problem is None and each.place != "only in the log" for each in rows):
        yield "no signature here holds"
    if hidden := sum(each.place == "only in the log" for each in rows):
        yield (
            f"in the log and not here: {counted(hidden, 'signature')}. Find their signers and the places where they "
            "are published"
        )
