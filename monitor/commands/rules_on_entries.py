"""`signwatch rules test` and `explain`: entries of files, judged as the daemon would."""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import to_builtins
from msgspec.structs import asdict

from alerts.alert import counted
from monitor.commands.entry_file import files_named, signings_in
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, say, say_json, table
from monitor.config import Config, load_config
from monitor.judging.active_rules import HeldRules, RuleKeeper
from monitor.judging.judge import RuleJudge
from monitor.model.state import Finding, Hit
from monitor.program import VERSION, utc_now
from monitor.store.database import create, open_database
from monitor.store.facts import DatabaseFacts
from monitor.trust.provider import TrustKeeper
from rules.judge import Explanation
from rules.judge import explain as explain_rule
from sigstore_entries.signing import Signing

EntryArgument = Annotated[
    Path,
    typer.Argument(
        help="A bundle in any form (see check-bundle), a Rekor entry or a certificate (PEM), a folder or a pattern of "
        "them; - is standard input.",
        metavar="FILE",
    ),
]


def try_rules(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Bundles in any form (see check-bundle), Rekor entries or certificates (PEM), folders or patterns of "
            "them; - is standard input.",
            metavar="FILE...",
        ),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Judge entries as if a log held them now.

    Exits 1 when one of them is unexpected, 3 when more rules may select one than are judged.

    `signwatch scan --rules FILE` tries rules on a range of a log.

    Examples:
      signwatch rules test artifact.sigstore.json
      signwatch rules test dist/
      signwatch rules test entry.json certificate.pem
      signwatch scan --log rekor-v2 --from 0 --to 100000 --rules draft.yaml
    """
    settings = load_config(config)
    rows: list[dict[str, Any]] = []
    dropped = 0
    with judging(settings) as (judge, held, _):
        for file, signing in [(each, signing) for each in files_named(files) for signing in signings_in(each)]:
            matches = held.matcher.confirm_all(signing)
            _note_left_out(file, signing, matches.dropped)
            dropped += matches.dropped
            rules = tuple(rule.id for rule in matches.rules)
            findings = judge.judge([Hit(matches.signing, rules, b"")], utc_now())
            rows += [_row(file, finding) for finding in findings]
            if not findings:
                rows.append({"file": str(file), "rule": None, "outcome": "not selected", "reasons": []})
    if as_json:
        say_json({"results": rows, "matches_left_out": dropped})
    else:
        cells = [
            (r["file"], r["rule"], r["outcome"], "; ".join(each["sentence"] for each in r["reasons"])) for r in rows
        ]
        table(("file", "rule", "verdict", "why"), cells)
    if any(row["outcome"] == "unexpected" for row in rows):
        raise leave(Exit.MISBEHAVED)
    raise leave(Exit.UNFINISHED if dropped else Exit.FINE)


def explain(
    rule_id: Annotated[str, typer.Argument(help="The rule's id.", metavar="RULE")],
    file: EntryArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show for an entry and one rule each value that was compared, the expected and the found one.

    For a folder or a pattern, the command explains the first entry of each file; with --json it prints a list of
    `results`.

    Examples:
      signwatch rules explain acme-release entry.json
      signwatch rules explain acme-release dist/
    """
    settings = load_config(config)
    files = list(files_named([file]))
    told = []
    with judging(settings) as (judge, held, facts):
        rule = next((each for each in held.rules.rules if each.id == rule_id), None)
        if rule is None:
            known = ", ".join(each.id for each in held.rules.rules[:20]) or "none"
            raise typer.BadParameter(f"there is no rule {rule_id!r}; rules: {known}", param_hint="RULE")
        for each in files:
            # Judged once for the label: whether the certificate comes from a trusted authority.
            first, *more = signings_in(each)
            _note_left_out(each, first, 0)
            labelled = judge.judge([Hit(first, (rule.id,), b"")], utc_now())[0].selected.signing
            told.append((each, explain_rule(rule, labelled, facts.stored, utc_now())))
            if more:
                note(f"{each}: explained is the first of {len(more) + 1} entries")
    if as_json:
        documents = [_explained(explanation) for _, explanation in told]
        results = [{"file": str(each), **document} for each, document in zip(files, documents, strict=True)]
        say_json(documents[0] if files == [file] else {"results": results})
        return
    for each, explanation in told:
        if files != [file]:
            say(f"{each}:")
        _show(explanation)


def _explained(told: Explanation) -> dict[str, Any]:
    verdict = to_builtins(told.verdict) if told.verdict else None
    return {"selected": told.selected, "verdict": verdict, "rows": [asdict(row) for row in told.rows]}


def _note_left_out(file: Path, signing: Signing, dropped: int) -> None:
    if signing.unread:
        note(f"{file}: read in part: {signing.unread}", "yellow")
    if dropped:
        note(f"{file}: not judged by all rules: {counted(dropped, 'more rule')} may select it", "yellow")


def _show(told: Explanation) -> None:
    rows = [(row.part, row.label, row.expected, row.found, "met" if row.ok else "NOT met") for row in told.rows]
    table(("part", "what", "wanted", "found", ""), rows)
    if told.verdict is None:
        say("the rule does not select this entry")
        return
    say(f"verdict: {told.verdict.outcome.value}")
    for reason in told.verdict.reasons:
        say(f"- {reason.sentence}")


@contextmanager
def judging(settings: Config) -> Iterator[tuple[RuleJudge, HeldRules, DatabaseFacts]]:
    """The judge of the daemon, on the daemon's database; on an empty one when nothing is followed yet."""
    held = RuleKeeper(settings.rules, settings.channels).held
    trust = TrustKeeper(settings.trust, utc_now)
    with tempfile.TemporaryDirectory(prefix="signwatch-") as folder:
        is_there = "://" in settings.database or Path(settings.database).exists()
        if not is_there:
            note("there is no database yet: judged as if there were no earlier signings")
        opened = open_database(settings.database) if is_there else create(f"{folder}/empty.db", utc_now(), VERSION)
        with closing(opened) as database:
            facts = DatabaseFacts(database, utc_now)
            yield RuleJudge(held.matcher, facts, trust.authorities, final=True), held, facts


def _row(file: Path, finding: Finding) -> dict[str, Any]:
    reasons = to_builtins(finding.verdict.reasons)
    return {"file": str(file), "rule": finding.rule, "outcome": finding.verdict.outcome.value, "reasons": reasons}
