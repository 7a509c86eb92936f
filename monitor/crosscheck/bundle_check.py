"""Compares the views that users' bundles prove with this monitor's knowledge of the same tree, and with the log.

A log cannot know that a bundle will be compared: a bundle from a forked history holds the log's signature on the fork.
Offline, the check compares heads of the same size and every tree node that two proofs share. Online, it also asks the
log for a consistency proof between the bundle's head and the newest trusted head.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from alerts.alert import counted
from monitor.crosscheck.bundles import BundleView
from monitor.model.errors import Evidence, FetchFailed, LogMisbehaved
from monitor.model.log_source import LogIdentity, LogSource, Position, SignedHead, read_head
from monitor.proof.trusted_head import HeadRelation, compare, contradiction_of, newest
from monitor.raising.log_alerts import alert_of_evidence
from monitor.store.reading import Reading
from monitor.store.store import Store
from monitor.store.views import KeptView, Views, tree_id
from tlog.nodes import Coordinate, conflicts, frontier_nodes


class BundleRelation(StrEnum):
    """Result for one log entry of a bundle."""

    CONSISTENT = "consistent"
    NOT_COVERED = "not-yet-covered"
    CONTRADICTION = "contradiction"
    UNVERIFIABLE = "unverifiable"
    NO_LOG_ENTRY = "no-log-entry"


class BundleVerdict(Struct, frozen=True):
    """Result of comparing one view with the rest. `agreeing` counts tree nodes that are already known.

    `unfinished` says that the log was to be asked and gave no usable answer.
    """

    relation: BundleRelation
    detail: str
    agreeing: int = 0
    evidence: Evidence | None = None
    unfinished: bool = False


FindSource = Callable[[BundleView], LogSource | None]
"""Finds the tree of a view among the logs that can be asked. Raises `FetchFailed`."""


class CrossCheck:
    """Checks views in order; each view's proofs are kept for later checks. `find_source` is `None` when offline."""

    def __init__(self, store: Store, clock: Callable[[], datetime], find_source: FindSource | None = None) -> None:
        self._store, self._clock, self._find_source = store, clock, find_source
        self._views = Views(store.database)

    def check(self, view: BundleView) -> BundleVerdict:
        """Compare one view with everything known.

        A contradiction is stored as evidence and alerted. Raises `OwnFault`.
        """
        position = self._followed(view.identity)
        identity = replace(view.identity, log=position.log) if position is not None else view.identity
        kept, nodes = _kept(view), view.nodes
        known = self._views.known(kept.tree, nodes)
        contradiction = self._find(view, kept, identity, position, known)
        if contradiction is not None:
            return self._accuse(contradiction)
        agreeing = sum(known[place][0] == value for place, value in nodes.items() if place in known)
        agreeing += len(self._shared(nodes, position))
        verdict = self._online(view, identity, position, agreeing)
        if verdict.relation is not BundleRelation.CONTRADICTION:
            # A contradicting view is kept as evidence only: its nodes must not count against later bundles.
            self._views.keep(kept, nodes, self._clock())
        return verdict

    def _followed(self, identity: LogIdentity) -> Position | None:
        """Return the position of the log whose stored head this very key signed for this very origin."""
        for each in Reading(self._store.database).followed().values():
            try:
                told = read_head(each.position.head.head.raw, identity.api, identity.key_name, identity.spki)
            except ValueError:
                continue
            if told.origin == identity.origin:
                return each.position
        return None

    def _find(
        self,
        view: BundleView,
        kept: KeptView,
        identity: LogIdentity,
        position: Position | None,
        known: Mapping[Coordinate, tuple[bytes, str]],
    ) -> Evidence | None:
        """Find a contradiction among the log's signed heads, without asking the log."""
        by_signatures = contradiction_of(self._heads(kept, identity, position), view.head, identity)
        if by_signatures is not None:
            return by_signatures
        for place in conflicts({place: value for place, (value, _) in known.items()}, view.nodes):
            witness = self._views.view(known[place][1])
            if witness is not None:
                return _two_views(witness, kept, place, identity)
        return self._against_frontier(kept, view, identity, position)

    def _heads(self, kept: KeptView, identity: LogIdentity, position: Position | None) -> Iterator[SignedHead]:
        if position is not None:
            yield from self._store.heads_at(identity.log, kept.size)
            yield position.head.head
        for each in self._views.of_size(kept.tree, kept.size):
            yield SignedHead(identity.log, each.size, each.root, each.head)

    def _against_frontier(
        self, kept: KeptView, view: BundleView, identity: LogIdentity, position: Position | None
    ) -> Evidence | None:
        if position is None:
            return None
        frontier, head = position.frontier, position.head.head
        places = conflicts(frontier_nodes(frontier), view.nodes)
        if not places:
            return None
        return identity.evidence(
            "log-forked",
            _sentence(places[-1], head.size, kept.size),
            event=_event(head.size, head.root),
            heads=(head.raw, kept.head),
            sizes=(frontier.size, kept.size),
            proof=self._frontier_proof(view, frontier.size, head.size),
            prefix=frontier.hashes,
            leaves=((kept.index, kept.leaf),),
            second_proof=kept.proof,
        )

    def _frontier_proof(self, view: BundleView, size: int, head_size: int) -> tuple[bytes, ...]:
        """Proof that the frontier lies in the head it was proven against; empty if the log could not be asked."""
        if size == head_size or self._find_source is None:
            return ()
        try:
            source = self._find_source(view)
            return tuple(source.consistency_proof(size, head_size)) if source is not None else ()
        except FetchFailed:
            return ()

    @staticmethod
    def _shared(nodes: Mapping[Coordinate, bytes], position: Position | None) -> list[Coordinate]:
        return [] if position is None else [place for place in frontier_nodes(position.frontier) if place in nodes]

    def _accuse(self, evidence: Evidence) -> BundleVerdict:
        self._store.keep_evidence(evidence, [alert_of_evidence(evidence, self._clock())])
        return BundleVerdict(BundleRelation.CONTRADICTION, evidence.detail, evidence=evidence)

    def _online(
        self, view: BundleView, identity: LogIdentity, position: Position | None, agreeing: int
    ) -> BundleVerdict:
        try:
            source = self._find_source(view) if self._find_source is not None else None
            if source is None:
                return _offline(view, position, agreeing)
            trusted = self._newest(source, identity, position)
        except LogMisbehaved as misbehaved:
            return self._accuse(misbehaved.evidence)
        except FetchFailed as error:
            told = _offline(view, position, agreeing)
            is_open = told.relation is BundleRelation.NOT_COVERED
            return replace(told, detail=f"the log was not asked: {error}", unfinished=True) if is_open else told
        compared = compare(source, trusted, view.head, self._store.heads_at(identity.log, view.head.size))
        if compared.evidence is not None:
            return self._accuse(replace(compared.evidence, log=identity.log))
        is_proven = compared.relation in {HeadRelation.SAME, HeadRelation.OLDER}
        if is_proven and position is not None:
            # The head is proven to belong to the followed history.
            self._store.record_head(dataclasses.replace(view.head, log=identity.log))
        if is_proven:
            by = "this monitor's verified history" if position is not None else "the log's present head"
            return BundleVerdict(
                BundleRelation.CONSISTENT, f"proven consistent with {by} of size {trusted.size}", agreeing
            )
        shows = f"the log shows only {counted(trusted.size, 'entry')} here, the bundle proves {view.head.size}"
        is_newer = compared.relation is HeadRelation.NEWER
        return BundleVerdict(
            BundleRelation.NOT_COVERED, shows if is_newer else compared.detail, agreeing, unfinished=not is_newer
        )

    def _newest(self, source: LogSource, identity: LogIdentity, position: Position | None) -> SignedHead:
        if position is None:
            return newest(source, None, lambda _: None).head
        return newest(
            source, position.head, lambda head: self._store.record_head(dataclasses.replace(head, log=identity.log))
        ).head


def _offline(view: BundleView, position: Position | None, agreeing: int) -> BundleVerdict:
    if position is None:
        return BundleVerdict(BundleRelation.NOT_COVERED, "this log is not followed here", agreeing)
    head, frontier = position.head.head, frontier_nodes(position.frontier)
    if (view.head.size, view.head.root) == (head.size, head.root):
        return BundleVerdict(BundleRelation.CONSISTENT, "the very head this monitor trusts", agreeing)
    if frontier and all(view.nodes.get(place) == value for place, value in frontier.items()):
        detail = f"its tree begins with all that this monitor verified: {counted(position.frontier.size, 'entry')}"
        return BundleVerdict(BundleRelation.CONSISTENT, detail, agreeing)
    detail = f"nothing contradicts it, and {agreeing} tree nodes agree; only the log can prove the rest"
    return BundleVerdict(BundleRelation.NOT_COVERED, detail, agreeing)


def _kept(view: BundleView) -> KeptView:
    head = view.head
    tree = tree_id(view.identity.spki, view.identity.origin)
    return KeptView(tree, head.size, head.root, head.raw, view.index, view.leaf, view.proof)


def _two_views(first: KeptView, second: KeptView, place: Coordinate, identity: LogIdentity) -> Evidence:
    return identity.evidence(
        "log-forked",
        _sentence(place, first.size, second.size),
        event=_event(first.size, first.root),
        heads=(first.head, second.head),
        sizes=(first.size, second.size),
        proof=first.proof,
        second_proof=second.proof,
        leaves=((first.index, first.leaf), (second.index, second.leaf)),
    )


def _event(size: int, root: bytes) -> str:
    # One fork shows at many places and in many bundles, so its event is named after the side that was known first.
    return f"node {size}:{root.hex()}"


def _sentence(place: Coordinate, known: int, seen: int) -> str:
    level, index = place
    first, last = index << level, ((index + 1) << level) - 1
    what = f"entry {first} is" if first == last else f"entries {first} to {last} are"
    return f"{what} not the same in the tree of size {seen} a bundle proves and in the tree of size {known} known here"
