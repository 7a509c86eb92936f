"""Alerts of findings: the signer, the artifact, the difference from the rule's expectation, and the next step.

Every text here may hold words that an attacker chose; each is cut to a readable length.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from msgspec import Struct

from alerts.alert import Alert, FactGroup, Owner, Severity, alert_id, counted, day_of, rfc3339
from monitor.model.state import Finding
from rules.canary import CANARY
from rules.expectations.authorised import AuthorisedExpectation
from rules.expectations.digests import DigestsFromExpectation
from rules.expectations.images import ImagesExpectation
from rules.facts import Facts, SourceForm
from rules.judge import WRONG_SIGNATURE
from rules.rule import CT_KINDS, Outcome, Reason, Rule, RuleSeverity
from rules.selection import digest_text, matched_values
from sigstore_entries.signing import EntryRef, Signer, Signing, digest_label

_SEVERITY: Final = {
    RuleSeverity.PAGE: Severity.PAGE,
    RuleSeverity.WARN: Severity.WARN,
    RuleSeverity.INFO: Severity.INFO,
}


Released = Callable[[Rule, Signing], Sequence[str]]
"""Names of the known releases that an entry may sign, such as "image NAME@sha256:…", "commit ID", "file NAME"."""


def _known_releases(facts: Callable[[], Facts]) -> Released:
    """Releases that a rule lists under `images`, that were announced for the rule, or that are in its registry.

    `facts` is asked only for rules with one of the latter two expectations.
    The log holds the digest of the signed bytes. For an image these are a statement about the image, which follows
    from the image's digest (`sigstore_entries.release`).
    """

    def released(rule: Rule, signing: Signing) -> Sequence[str]:
        shown = {digest_text(digest) for digest in signing.digests}
        found: list[str] = []
        for kind in rule.expect:
            if isinstance(kind, ImagesExpectation):
                found += [each.what for each in kind.releases if not shown.isdisjoint(each.digests)]
            elif isinstance(kind, AuthorisedExpectation):
                given = facts().authorised
                announced = [each for digest in sorted(shown) for each in given.authorisations(rule.id, digest)]
                found += [each.what for each in announced if each.what != each.digest]
            elif isinstance(kind, DigestsFromExpectation) and kind.source.form is SourceForm.REGISTRY:
                listed = facts().known.digests_from(kind.source) or ()
                found += [] if shown.isdisjoint(listed) else [f"image of {kind.source.target}"]
        return list(dict.fromkeys(filter(None, found)))

    return released


def _none_known(_rule: Rule, _signing: Signing) -> Sequence[str]:
    return ()


def alerts_of_findings(
    findings: Sequence[Finding],
    rules: Mapping[str, Rule],
    now: datetime,
    facts: Callable[[], Facts] | None = None,
) -> list[Alert]:
    """One alert per unexpected signing, one a day per rule for signings without a trusted certificate, else none.

    The canary's announced signings make alerts too, which test the path of alerts. `facts` names the known releases.
    """
    released = _none_known if facts is None else _known_releases(facts)
    words: dict[object, SigningWords] = {}

    def told(finding: Finding, rule: Rule) -> SigningWords:
        """Each description is made once: a name may have thousands of subscribers who are told the same of it."""
        names = tuple(released(rule, finding.selected.signing))
        key = id(finding.selected), id(rule.select), finding.verdict.reasons, names
        if key not in words:
            words[key] = describe(finding, rule, names)
        return words[key]

    alerts = [
        _alert_of_unexpected(finding, rules[finding.rule], now, told(finding, rules[finding.rule]))
        for finding in findings
        if finding.verdict.outcome is Outcome.UNEXPECTED
    ]
    wrong = [finding for finding in findings if WRONG_SIGNATURE in finding.verdict.reasons]
    unverified = [
        finding
        for finding in findings
        if finding.verdict.outcome is Outcome.UNVERIFIED and WRONG_SIGNATURE not in finding.verdict.reasons
    ]
    counts = Counter(finding.rule for finding in unverified)
    firsts = {finding.rule: finding for finding in reversed(unverified)}
    alerts += [_alert_of_unverified(firsts[rule], rules[rule], counts[rule], now) for rule in sorted(firsts)]
    return alerts + _alerts_of_wrong_signatures(wrong, now) + canary_seen_alerts(findings, now)


def _alert_of_unexpected(finding: Finding, rule: Rule, now: datetime, told: "SigningWords") -> Alert:
    signing = finding.selected.signing
    where = signing.where
    issued = signing.kind in CT_KINDS
    return Alert(
        id=alert_id("unexpected-signing", where.log, str(where.index), finding.rule),
        kind="unexpected-signing",
        owner=Owner.SIGNING,
        severity=_SEVERITY[rule.severity],
        title=told.title,
        summary=f"{told.done} The rule “{rule.title or rule.id}” does not expect it."
        + (" No log entry has used it yet." if issued else ""),
        consequence="The holder of this certificate can sign under your identity: the signature verifies as yours."
        if issued
        else "The signed artifact verifies as yours for every client.",
        next_step=f"If it was you: acknowledge it and extend the rule {rule.id}. If not: revoke the token, workflow or "
        "account behind the identity first, then warn the people who rely on what was signed.",
        created_at=now,
        reasons=tuple(_sentence(reason) for reason in finding.verdict.reasons),
        facts=told.facts,
        groups=(*told.groups, _proof(where)),
        identity=told.identity,
        log=where.log,
        index=where.index,
        rule=finding.rule,
    )


def _proof(where: EntryRef) -> FactGroup:
    command = f"signwatch search --entry {where.log}:{where.index} --prove signing.json"
    return FactGroup(
        "Proof",
        (
            ("In the log", "The entry was hashed into a tree head that the log signed, before this alert was made."),
            ("To show others", f"{command} (where the log is archived)"),
        ),
    )


def _alerts_of_wrong_signatures(findings: Sequence[Finding], now: datetime) -> list[Alert]:
    """One alert a day and log for entries whose signature does not verify: the log should have refused them."""
    entries: dict[str, dict[int, Finding]] = {}
    for finding in findings:
        entries.setdefault(finding.selected.signing.where.log, {}).setdefault(
            finding.selected.signing.where.index, finding
        )
    return [
        Alert(
            id=alert_id("entry-signature-wrong", log, day_of(now)),
            kind="entry-signature-wrong",
            owner=Owner.LOG_MISBEHAVED,
            severity=Severity.WARN,
            title=f"{log} took an entry whose signature does not verify",
            summary=f"{len(met)} in today's first batch with such entries that your rules select; the first is "
            f"{min(met)}.",
            consequence="The log broke its own rules. Such an entry says nothing about its alleged signer: it does "
            "not count as their signing, and no client accepts it.",
            next_step="There was no signing in your name. Tell the log's operator, with the log's name and the index: "
            "the entry itself is the evidence, and any person can verify it.",
            created_at=now,
            facts=(("Log", log), ("First index", str(min(met))), ("Rule", met[min(met)].rule)),
            log=log,
            index=min(met),
        )
        for log, met in sorted(entries.items())
    ]


def _alert_of_unverified(first: Finding, rule: Rule, count: int, now: datetime) -> Alert:
    where, told = first.selected.signing.where, describe(first, rule)
    return Alert(
        id=alert_id("unverified-signing", where.log, first.rule, day_of(now)),
        kind="unverified-signing",
        owner=Owner.SIGNING,
        severity=Severity.INFO,
        title=f"Entries in your name without a certificate of a trusted authority: {first.rule}",
        summary=f"{count} in today's first batch with such entries; the first is {where.index} in {where.log}.",
        consequence="Any person can log a self-made certificate or PGP key with any name, and no client accepts it.",
        next_step="No step is needed, unless you issue certificates of your own: then add their authority to the "
        "trust root. Select your own keys by fingerprint.",
        created_at=now,
        facts=told.facts,
        groups=told.groups,
        identity=told.identity,
        log=where.log,
        rule=first.rule,
    )


def _sentence(reason: Reason) -> str:
    wanted = f" Expected: {reason.expected:.500}." if reason.expected else ""
    found = f" Found: {reason.found:.500}." if reason.found else ""
    return reason.sentence + wanted + found


_MAX_FACTS: Final = 40
_MAX_TEXT: Final = 500
_MAX_NAME: Final = 90
_MAX_REF: Final = 40
_MIN_CUT: Final = 20
_MAX_DIFFERENCE: Final = 70
_TOLD: Final = 2
_WORKFLOW = re.compile(r"https://([^/@]+/[^@]*?)/(?:/?\.(?:github|gitea|forgejo)/workflows/|/)([^/@]+)@(.+)", re.ASCII)
_WHAT: Final[Mapping[str, str]] = {
    "dsse": "an attestation",
    "intoto": "an attestation",
    "cose": "a COSE message",
    "helm": "a Helm chart",
    "rpm": "an RPM package",
    "alpine": "an Alpine package",
    "jar": "a Java archive",
    "tuf": "TUF metadata",
    "rfc3161": "a timestamp",
}
_RELEASES: Final[Mapping[str, str]] = {"image": "an"}
_DIGITS: Final = re.compile(r"[0-9a-f]{40,}")
# Kinds of entries whose digest may belong to other bytes than those of a file.
_ABOUT_OTHERS: Final = frozenset({"hashedrekord", "dsse", "intoto"})
_ABOUT_DIGESTS: Final = (
    "About the digest",
    "of a file, of a commit's id, or of a statement about an image: use `signwatch check-image` and `check-commit`",
)
# Claims with a place in a group: group, label, claims in the order of preference. The first claim is shown, the
# others only if they differ.
_CLAIMS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("Source", "Repository", ("source_repository_uri", "github_workflow_repository")),
    ("Source", "Branch or tag", ("source_repository_ref", "github_workflow_ref")),
    ("Source", "Commit", ("source_repository_digest", "github_workflow_sha")),
    ("Source", "Visibility", ("source_repository_visibility",)),
    ("Source", "Repository number", ("source_repository_identifier",)),
    ("Source", "Owner", ("source_repository_owner_uri",)),
    ("Source", "Owner number", ("source_repository_owner_identifier",)),
    ("Build", "Workflow", ("build_config_uri",)),
    ("Build", "Started by", ("build_trigger", "github_workflow_trigger")),
    ("Build", "Run", ("run_invocation_uri",)),
    ("Build", "Runner", ("runner_environment",)),
    ("Build", "Environment", ("deployment_environment",)),
    ("Build", "Instructions", ("build_signer_uri",)),
)
_GROUPS: Final = ("Source", "Build")
# The start of a certificate's validity is shown with the certificate.
_TIMES: Final[Mapping[str, str]] = {
    "integrated-time": "Logged at",
    "ct-timestamp": "Certificate logged at",
    "timestamp-response": "Timestamped at",
}
# Differences of a signing, the most serious first: those of a stranger's use of a name before those of a colleague's.
_DIFFERENCES: Final[Mapping[str, str]] = {
    "issuer": "with a login from {found} instead of {expected}",
    "new-issuer": "with a login from {found} instead of {expected}",
    "repository": "for the repository {found} instead of {expected}",
    "repository-identifier": "from another repository of that name ({found} instead of {expected})",
    "same-repository-identifier": "from another repository of that name ({found} instead of {expected})",
    "owner-identifier": "from another owner of that name ({found} instead of {expected})",
    "workflow": "by the workflow {found} instead of {expected}",
    "builder": "by the build instructions {found} instead of {expected}",
    "ref": "on {found} instead of {expected}",
    "trigger": "started by {found} instead of {expected}",
    "environment": "for the environment {found} instead of {expected}",
    "runner": "on {found} runners instead of {expected}",
    "visibility": "from a {found} repository instead of {expected}",
    "authorised": "without being announced",
    "digests": "with a digest that is not on the list",
    "digests-from": "with a digest that is not on the list",
    "images": "which is no image on the list",
    "no-expectations": "which the rule always reports",
    "time-windows": "outside the hours for signing",
    "rate": "more often than allowed",
    "logged-after-expiry": "after the certificate had expired",
    "log-entry-within": "and no log entry shows its use",
    "certificate-log-within": "and no certificate log shows its certificate",
    "unreadable-part": "with a part that cannot be read",
}


class SigningWords(Struct, frozen=True):
    """`title` is the first line: signer, artifact and differences; `done` names signer and artifact, as a sentence.

    `facts` name the signer, `groups` hold the other facts, each once.
    """

    title: str
    done: str
    identity: str
    facts: tuple[tuple[str, str], ...]
    groups: tuple[FactGroup, ...]


def describe(finding: Finding, rule: Rule, released: Sequence[str] = ()) -> SigningWords:
    """Describe a finding for an alert. `released` are the known releases that it may be a signature of."""
    signing, identity = finding.selected.signing, _who(rule, finding)
    issued = signing.kind in CT_KINDS
    did = "was issued a signing certificate" if issued else f"signed {_what(signing, released)}"
    reasons = finding.verdict.reasons
    differs = [each for each in map(_difference, sorted(reasons, key=_telling)) if each]
    how = f" {', '.join(differs[:_TOLD])}" if differs else ""
    more = len(reasons) - min(len(differs), _TOLD)
    also = f", and {more} more" if more > 0 and differs else ""
    name = f"The key {identity}" if _is_key(identity, signing) else identity
    # The title does not repeat a workflow and a ref that the difference names.
    named = {each.id for each in reasons if each.id in {"ref", "workflow"}} if len(differs) <= _TOLD else set()
    facts, groups = _facts(rule, signing, released)
    return SigningWords(
        title=f"{short_name(name, without=named)} {did}{how}{also}",
        done=f"{name[:_MAX_TEXT]} {did}.",
        identity=identity[:_MAX_TEXT],
        facts=facts,
        groups=groups,
    )


def short_name(name: str, *, without: Collection[str] = ()) -> str:
    """An identity as a subject line shows it: a workflow as host/owner/name, never without its host.

    The ref follows unless `without` names it, and the workflow's file if `without` is empty. A long name loses its
    middle, never its host or ref.
    """
    told = ""
    if match := _WORKFLOW.fullmatch(name):
        file = "" if without else match[2]
        ref = "" if "ref" in without else f"on {_cut_middle(ref_words(match[3]), _MAX_REF)}"
        told = f" ({' '.join(filter(None, (file, ref)))})" if file or ref else ""
        name = match[1].rstrip("/")
    return _cut_middle(name, _MAX_NAME - len(told)) + told


def _cut_middle(text: str, longest: int) -> str:
    if len(text) <= max(longest, _MIN_CUT):
        return text
    kept = max(longest, _MIN_CUT) - 1
    return f"{text[: kept - kept // 3]}…{text[len(text) - kept // 3 :]}"


def ref_words(ref: str) -> str:
    """`refs/heads/main` as "branch main", `refs/tags/v1` as "tag v1"; other texts as they are."""
    for prefix, word in (("refs/heads/", "branch"), ("refs/tags/", "tag"), ("refs/pull/", "pull request")):
        if ref.startswith(prefix):
            return f"{word} {ref.removeprefix(prefix)}"
    return ref


def _what(signing: Signing, released: Sequence[str]) -> str:
    if released:
        kind, _, name = released[0].partition(" ")
        more = f" and {len(released) - 1} more" if len(released) > 1 else ""
        return f"{_RELEASES.get(kind, 'a')} {kind} ({_DIGITS.sub(_first_digits, name)[:_MAX_NAME]}){more}"
    return _WHAT.get(signing.kind.partition(" ")[0], "an artifact")


def _first_digits(digits: re.Match[str]) -> str:
    return f"{digits[0][:12]}…"


def _telling(reason: Reason) -> int:
    order = list(_DIFFERENCES)
    return order.index(reason.id) if reason.id in order else len(order)


def _difference(reason: Reason) -> str:
    form = _DIFFERENCES.get(reason.id)
    if form is None:
        return ""
    if "{" not in form:
        return form
    if not reason.found or reason.found.startswith("("):
        return f"without a {reason.id.replace('-', ' ')} in its certificate"
    found, expected = (_plain(reason.id, text) for text in (reason.found, reason.expected))
    return (
        form.format(found=found, expected=expected)
        if expected
        else form.partition(" instead of")[0].format(found=found)
    )


def _plain(reason: str, text: str) -> str:
    """An expected or found value as a phrase: patterns without their syntax, refs as words."""
    words = [each.strip().removeprefix("glob:").removeprefix("exact:") for each in text.split(" or ")]
    if reason == "workflow":
        words = [each.partition("@refs/")[0].rpartition("/")[2] or each for each in words]
    words = [ref_words(each) for each in words]
    phrase = " or ".join(words)
    return phrase if len(phrase) <= _MAX_DIFFERENCE else f"{phrase[: _MAX_DIFFERENCE - 1]}…"


def _who(rule: Rule, finding: Finding) -> str:
    """The name or key by which the rule selects a signer, vouched signers first, else the first name."""
    signing, selected = finding.selected.signing, finding.selected
    signers = selected.vouched or tuple(each.signer for each in selected.signers if each.signer is not None)
    for signer in signers:
        if name := next(matched_values(rule.select, "identity", signing, signer), ""):
            return name[:_MAX_TEXT]
        if key := next(matched_values(rule.select, "fingerprint", signing, signer), ""):
            return key[:_MAX_TEXT]
    names = [name.value for signer in signers for name in signer.names[:1]]
    keys = [signer.fingerprints[0] for signer in signers if signer.fingerprints]
    return (names or keys or ["An unnamed signer"])[0][:_MAX_TEXT]


def _is_key(identity: str, signing: Signing) -> bool:
    return any(identity in signer.fingerprints for signer in signing.signers)


def _facts(
    rule: Rule, signing: Signing, released: Sequence[str]
) -> tuple[tuple[tuple[str, str], ...], tuple[FactGroup, ...]]:
    """Facts about the signers: those that the rule selects first, and the rest in groups.

    An entry may name thousands of subjects: the alert gives their number, and the database keeps the entry whole.
    """
    who: list[tuple[str, str]] = []
    grouped: dict[str, list[tuple[str, str]]] = {}
    for number, signer in enumerate(sorted(signing.signers, key=lambda each: not rule.select.holds(signing, each))):
        names = dict.fromkeys(matched_values(rule.select, "identity", signing, signer))
        names |= dict.fromkeys(name.value for name in signer.names)
        who += [("Identity", name) for name in names]
        who += [("Login from", signer.issuer)] if signer.issuer else []
        keys = list(dict.fromkeys(matched_values(rule.select, "fingerprint", signing, signer)))
        keys = keys or ([] if names else list(signer.fingerprints))
        who += [("Key", key) for key in keys]
        for name, facts in _of_signer(signer, said=[*names, *keys, signer.issuer or ""]):
            # Two signers' claims side by side could not be told apart.
            heading = name if number == 0 else f"{name} (signer {number + 1})"
            grouped.setdefault(heading, []).extend(facts)
    entry = [("Log", signing.where.log), ("Index", str(signing.where.index)), ("Kind", signing.kind)]
    entry += [(digest_label(signing.kind, digest.of), digest_text(digest)) for digest in signing.digests]
    entry += [("Signed", _words(each)) for each in released]
    if signing.digests and signing.kind in _ABOUT_OTHERS:
        entry.append(_ABOUT_DIGESTS)
    entry += [(_TIMES[each.source], rfc3339(each.at)) for each in signing.times if each.source in _TIMES]
    claims = {name: facts for name, facts in grouped.items() if name.startswith("Claims")}
    groups = [(name, facts) for name, facts in grouped.items() if name not in claims]
    groups += [("Entry", entry), *claims.items()]
    made = [FactGroup(name, _cut(facts), raw=name in claims) for name, facts in groups if facts]
    return _cut(who), tuple(made[:_MAX_FACTS])


def _words(release: str) -> str:
    """The release as a fact. The log holds a file's own digest; for an image, the digest of a statement about it."""
    return release if release.startswith("file ") else f"{release}; its own digest is not in the log"


def _of_signer(signer: Signer, said: list[str]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    left = {name: value for name, value in signer.claims.items() if name not in {"issuer", "issuer_v1"}}
    found: dict[str, list[tuple[str, str]]] = {group: [] for group in _GROUPS}
    for group, label, names in _CLAIMS:
        for name in names:
            value = left.pop(name, None)
            if value is None or _is_said(label, value, said):
                continue
            found[group].append((label, value))
            said.append(value)
    yield from found.items()
    certificate = [("Issued by", signer.trusted_by or signer.trust.value)]
    if signer.not_before is not None and signer.not_after is not None:
        certificate.append(("Valid", f"{rfc3339(signer.not_before)} to {rfc3339(signer.not_after)}"))
    certificate += [("Fingerprint", key) for key in signer.fingerprints if key not in said]
    yield "Certificate", certificate
    yield "Claims", [(name, value) for name, value in sorted(left.items()) if value not in said]


def _is_said(label: str, value: str, said: Sequence[str]) -> bool:
    """True if an earlier fact has the same value, or is a repository that contains the owner or short name."""
    inside = label == "Owner" and any(each.startswith(f"{value}/") for each in said)
    # GitHub's older claim gives a repository as owner/name.
    return value in said or inside or (label == "Repository" and any(each.endswith(f"/{value}") for each in said))


def _cut(facts: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    shown = [(label[:_MAX_TEXT], value[:_MAX_TEXT]) for label, value in facts[:_MAX_FACTS]]
    if len(facts) > _MAX_FACTS:
        shown.append(("More", f"{counted(len(facts) - _MAX_FACTS, 'further fact')} left out"))
    return tuple(shown)


SEEN: Final = "canary-seen"
MISSED: Final = "canary-missed"
NOT_SIGNED: Final = "canary-not-signed"
_BUNDLE_KEPT: Final = (
    "`signwatch canary list` names the runs, and `signwatch canary export` writes the bundle of one: `signwatch "
    "check-bundle` then checks whether the log shows you its entry. "
)
_MISSED_SEVERITY: Final = {Owner.OURSELVES: Severity.PAGE, Owner.LOG_MISBEHAVED: Severity.PAGE}


def canary_seen_alerts(findings: Sequence[Finding], now: datetime) -> list[Alert]:
    """The alert about an announced signing of the canary.

    It takes the path of every alert, and only the canary receives it.

    Its id follows from the digest, by which the canary recognises it.
    """
    return [
        Alert(
            id=f"{SEEN}-{digest_text(finding.selected.signing.digests[0])}",
            kind="canary-seen",
            owner=Owner.OURSELVES,
            severity=Severity.INFO,
            title="The canary's signing was seen",
            summary="The canary signed, and the path from the log to an alert works.",
            consequence="None.",
            next_step="Nothing.",
            created_at=now,
            log=finding.selected.signing.where.log,
            index=finding.selected.signing.where.index,
            rule=CANARY,
        )
        for finding in findings
        if finding.rule == CANARY and finding.verdict.outcome is Outcome.EXPECTED and finding.selected.signing.digests
    ]


def canary_missed_alert(log: str, first: int, owner: Owner, detail: str, now: datetime) -> Alert:
    """Alert for a signing that was not seen in time. `first` is the number of the first such run in a row."""
    return Alert(
        id=alert_id("canary-missed", log, str(first)),
        kind="canary-missed",
        owner=owner,
        severity=_MISSED_SEVERITY.get(owner, Severity.WARN),
        title=f"The canary signed in {log}, and the alert about it did not arrive in time",
        summary=detail,
        consequence="Signwatch may miss a signing in your name, or report it late.",
        next_step="Run `signwatch status` and `signwatch doctor`, and look at the daemon's log. "
        f"{_BUNDLE_KEPT if first else ''}The alert is resolved when a canary is seen in time again.",
        created_at=now,
        facts=(("Log", log), ("Run", str(first))),
        log=log,
    )


def canary_not_signed_alert(log: str, first: int, owner: Owner, detail: str, now: datetime) -> Alert:
    """Alert for a canary that could not sign. `first` is the number of the first such run in a row."""
    return Alert(
        id=alert_id("canary-not-signed", log, str(first)),
        kind="canary-not-signed",
        owner=owner,
        severity=Severity.WARN,
        title=f"The canary cannot sign in {log}",
        summary=detail,
        consequence="Signwatch cannot test whether alerts arrive until the canary can sign again.",
        next_step="Sign by hand with `sign-lite sign` and the same token. If the service refused the token, replace "
        "the token; otherwise wait for the signing service.",
        created_at=now,
        facts=(("Log", log), ("Run", str(first))),
        log=log,
    )
