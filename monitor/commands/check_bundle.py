"""`signwatch check-bundle`: compares users' bundles with the log that this monitor was shown."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec import Struct, field

from alerts.inert import inert_json
from monitor.commands.entry_file import files_named, read_capped
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, note, table
from monitor.config import Config, load_config
from monitor.crosscheck.bundle_check import BundleRelation, BundleVerdict, CrossCheck
from monitor.crosscheck.bundle_promises import PromiseCheck
from monitor.crosscheck.bundles import (
    BadBundle,
    BundlePromise,
    BundleView,
    EntryWithoutProof,
    read_certificate_timestamps,
    read_entries,
    read_timestamps,
    read_unlogged,
)
from monitor.daemon.configured_log import as_followed
from monitor.daemon.followed_logs import configured_logs
from monitor.daemon.log_sources import opened_trees
from monitor.daemon.trust_watch import trust_of
from monitor.following.follower import Timing
from monitor.judging.active_rules import route_of
from monitor.model.errors import OwnFault
from monitor.model.log_source import LogSource, PromisingSource
from monitor.program import utc_now
from monitor.proof.evidence import event_id
from monitor.store.database import open_database
from monitor.store.store import Store
from monitor.trust.provider import TrustKeeper
from sigstore_entries.bundle_file import HeldBundle, NotHeld, read_bundle_file


class BundleResult(Struct, frozen=True):
    """Result for one log entry, or one promise, of one file; neither is set if the file proves nothing.

    `place` is the bundle's place in the file; empty if the bundle is the whole file.
    """

    file: Path
    place: str
    verdict: BundleVerdict
    view: BundleView | None = None
    promised: BundlePromise | None = None
    is_promise: bool = False

    @property
    def where(self) -> str:
        """File and place, for people."""
        return f"{self.file}: {self.place}" if self.place else str(self.file)

    @property
    def log(self) -> str | None:
        """The log it is about: the origin where a head names one."""
        if self.view is not None:
            return self.view.identity.origin
        return self.promised.log.name if self.promised is not None else None

    @property
    def index(self) -> int | None:
        """Index at which the entry is, or was promised to be."""
        if self.view is not None:
            return self.view.index
        return self.promised.promise.index if self.promised is not None else None


class ConfiguredTrees(Struct):
    """Trees of the configured logs, opened when a bundle names their key for the first time."""

    config: Config
    trust: TrustKeeper
    store: Store
    parts: ExitStack
    opened: dict[str, list[LogSource]] = field(default_factory=dict)

    def find(self, view: BundleView) -> LogSource | None:
        """Source of the tree that the view is of, if it can be asked."""
        trees = self._of_key(view.identity.spki)
        return next((tree for tree in trees if tree.identity.origin == view.identity.origin), None)

    def find_all(self, promised: BundlePromise) -> list[PromisingSource]:
        """Trees in which the promised entry can be."""
        return [tree for tree in self._of_key(promised.promise.spki) if isinstance(tree, PromisingSource)]

    def _of_key(self, spki: bytes) -> Iterator[LogSource]:
        for log in configured_logs(self.config, self.trust):
            try:
                pinned = as_followed(log, self.trust, self.store).spki
            except OwnFault:
                continue
            if pinned != spki:
                continue
            if log.name not in self.opened:
                timing = Timing(utc_now, time.sleep)
                trees = self.parts.enter_context(opened_trees(self.config, self.trust, self.store, timing, log.name))
                self.opened[log.name] = trees
            yield from self.opened[log.name]


def check_bundle(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Bundles or log entries; folders and patterns of them; - is standard input.", metavar="FILE…"
        ),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    offline: Annotated[
        bool, typer.Option("--offline", help="Send no request to a log: use this monitor's data only.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare the proofs in bundles with the log as this monitor was shown it: a log with two histories is caught.

    Only the log's statements in a bundle are checked, not the artifact's signature: the proof of inclusion, the signed
    entry timestamp of Rekor v1, and the certificate timestamps of CT logs. The database keeps the proven hashes, so
    that later bundles are compared with them too. A contradiction makes evidence and an alert.

    The command reads Sigstore bundles of every version, JSON Lines and arrays of them, answers of Rekor v1, PyPI
    provenance and
    attestations (PEP 740), npm's and GitHub's attestation APIs, `gh attestation download`, and cosign's older bundles.

    Exits 0 without a contradiction, 1 when a log contradicted itself or broke a promise that it signed, 3 when an
    entry proves nothing, a bundle has no log entry, or the log did not answer or does not show a promised entry.

    Examples:
      signwatch check-bundle artifact.sigstore.json
      signwatch check-bundle --offline --json dist/*.sigstore.json
      signwatch check-bundle dist/ provenance.json
      signwatch check-bundle --json - < attestations.json
    """
    settings = load_config(config)
    with ExitStack() as parts:
        database = open_database(settings.database)
        parts.callback(database.close)
        store = Store(database, clock=utc_now, route=route_of(settings, None))
        trust = trust_of(settings.trust, utc_now, store)
        trees = ConfiguredTrees(settings, trust, store, parts)
        checker = CrossCheck(store, utc_now, None if offline else trees.find)
        promises = PromiseCheck(store, utc_now, None if offline else trees.find_all)
        checked = [each for file in files_named(files) for each in _check(file, trust, checker, promises)]
    if as_json:
        # Every entry of all files; only the texts of an entry are cut.
        document = {
            "entries": [inert_json(_document(each)) for each in checked if not each.is_promise],
            "promises": [inert_json(_promise_document(each)) for each in checked if each.is_promise],
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        _show(checked)
    raise leave(_code(checked))


def _check(file: Path, trust: TrustKeeper, checker: CrossCheck, promises: PromiseCheck) -> Iterator[BundleResult]:
    for held in read_bundle_file(read_capped(file)):
        if isinstance(held, NotHeld):
            yield BundleResult(file, held.place, BundleVerdict(BundleRelation.UNVERIFIABLE, held.why))
            continue
        try:
            yield from check_held(file, held, trust, checker, promises)
        except BadBundle as bad:
            yield BundleResult(file, held.place, BundleVerdict(BundleRelation.UNVERIFIABLE, str(bad)))


def check_held(
    file: Path, held: HeldBundle, trust: TrustKeeper, checker: CrossCheck, promises: PromiseCheck
) -> Iterator[BundleResult]:
    """Check every log entry and promise of one bundle. Raises `BadBundle`."""
    # A bundle stays valid evidence after its log left the trust root.
    root, authorities = trust.history().followable(), trust.authorities()[0]
    unlogged = read_unlogged(held, root, authorities)
    if unlogged is not None:
        yield BundleResult(file, held.place, BundleVerdict(BundleRelation.NO_LOG_ENTRY, unlogged.told))
    entries, timestamps = read_entries(held, root), read_timestamps(held, root)
    stamped = read_certificate_timestamps(held, root, authorities)
    for entry, timestamp in zip(entries, timestamps, strict=True):
        if not isinstance(entry, BadBundle):
            yield BundleResult(file, held.place, checker.check(entry), entry)
        elif not (isinstance(entry, EntryWithoutProof) and isinstance(timestamp, BundlePromise)):
            # An older bundle has no proof, only the promise.
            yield BundleResult(file, held.place, BundleVerdict(BundleRelation.UNVERIFIABLE, str(entry)))
    for promised in [*timestamps, *stamped]:
        if isinstance(promised, BadBundle):
            yield BundleResult(
                file, held.place, BundleVerdict(BundleRelation.UNVERIFIABLE, str(promised)), is_promise=True
            )
        elif promised is not None:
            yield BundleResult(file, held.place, promises.check(promised), promised=promised, is_promise=True)


def _code(checked: list[BundleResult]) -> Exit:
    if any(each.verdict.relation is BundleRelation.CONTRADICTION for each in checked):
        return Exit.MISBEHAVED
    proves_nothing = {BundleRelation.UNVERIFIABLE, BundleRelation.NO_LOG_ENTRY}
    unsure = any(each.verdict.unfinished or each.verdict.relation in proves_nothing for each in checked)
    return Exit.UNFINISHED if unsure else Exit.FINE


def _show(checked: list[BundleResult]) -> None:
    rows = [
        (
            each.where,
            each.log,
            each.index,
            each.verdict.relation.value,
            each.verdict.detail,
        )
        for each in checked
    ]
    table(("file", "log", "entry", "verdict", "why"), rows)
    for each in checked:
        if each.verdict.evidence is not None:
            name = event_id(each.verdict.evidence)[:8]
            note(
                f"the evidence is kept: `signwatch evidence export {name}` writes a file that any person can check",
                "bold red",
            )


def _document(checked: BundleResult) -> dict[str, Any]:
    view, verdict = checked.view, checked.verdict
    return {
        "file": str(checked.file),
        "place": checked.place or None,
        "log": checked.log,
        "index": checked.index,
        "tree_size": view.head.size if view else None,
        "root": view.head.root.hex() if view else None,
        "verdict": verdict.relation.value,
        "detail": verdict.detail,
        "agreeing_nodes": verdict.agreeing,
        "asked_in_vain": verdict.unfinished,
        "evidence": event_id(verdict.evidence) if verdict.evidence else None,
    }


def _promise_document(checked: BundleResult) -> dict[str, Any]:
    promise, verdict = checked.promised.promise if checked.promised else None, checked.verdict
    return {
        "file": str(checked.file),
        "place": checked.place or None,
        "log": checked.log,
        "kind": promise.kind.value if promise else None,
        "index": checked.index,
        "leaf_hash": promise.leaf_hash.hex() if promise else None,
        "promised_at": promise.at.isoformat() if promise else None,
        "verdict": verdict.relation.value,
        "detail": verdict.detail,
        "asked_in_vain": verdict.unfinished,
        "evidence": event_id(verdict.evidence) if verdict.evidence else None,
    }
