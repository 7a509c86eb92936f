"""Evidence this project exports convinces a reader that shares no code with it, and a record convinces no reader."""

import ast
import base64
import copy
import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from monitor.crosscheck.bundle_check import _two_views
from monitor.crosscheck.bundles import BundleView
from monitor.model.errors import Evidence, LogMisbehaved
from monitor.model.log_source import TrustedHead
from monitor.proof.evidence import NotEvidence, check_evidence, to_document
from monitor.proof.trusted_head import advance
from monitor.store.views import KeptView
from tests.evidence import independent_reader
from tests.evidence.independent_reader import ShowsNothing
from tests.support.bundles import bundle, entry, trust_root, views_in
from tests.support.harness import KINDS, watch
from tests.support.misbehaving_log import (
    CtRfc6962Log,
    CtStaticLog,
    MisbehavingLog,
    RekorV1Log,
    RekorV2Log,
    b64,
    ecdsa_key,
    ed25519_key,
)
from tlog.merkle import Frontier, NodeHash, leaf_hash
from tlog.nodes import Coordinate, conflicts, full_subtrees

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)


def forked(kind: type[MisbehavingLog], size: int, grown: int) -> Evidence:
    seen = watch(kind, size)
    seen.log.rewrite_from(size // 2)
    seen.log.grow(grown)
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    return caught.value.evidence


def split(kind: type[MisbehavingLog], size1: int, size2: int, fork_at: int) -> tuple[MisbehavingLog, MisbehavingLog]:
    public, hidden = kind(), kind()
    public.grow(size1)
    hidden.grow(size2)
    hidden.rewrite_from(fork_at)
    return public, hidden


def kept(log: MisbehavingLog, index: int) -> KeptView:
    """What a proof of inclusion under the log's present head shows, in each protocol."""
    head, size = log.source().latest(), len(log.leaves)
    proof = tuple(NodeHash(node) for node in log.oracle().inclusion_proof(index, size))
    return KeptView("tree", size, head.root, head.raw, index, log.leaves[index], proof)


def two_nodes(kind: type[MisbehavingLog], first: int, second: int) -> Evidence:
    public, hidden = split(kind, 100, 117, 20)
    one, other = kept(public, first), kept(hidden, second)
    place = conflicts(nodes(one), nodes(other))[-1]
    return _two_views(one, other, place, public.source().identity)


def nodes(view: KeptView) -> dict[Coordinate, NodeHash]:
    return full_subtrees(view.index, view.size, leaf_hash(view.leaf), view.proof, view.root)


def frontier_and_node(kind: type[MisbehavingLog]) -> Evidence:
    """A monitor that read 48 of 64 entries, and a signer who was shown another entry 20."""
    public, hidden = split(kind, 64, 90, 20)
    head = public.source().latest()
    frontier = Frontier().extended(leaf_hash(leaf) for leaf in public.leaves[:48])
    other, identity = kept(hidden, 25), public.source().identity
    return Evidence(
        log="log",
        api=identity.api,
        kind="log-forked",
        detail="made for this test",
        spki=identity.spki,
        key_name=identity.key_name,
        heads=(head.raw, other.head),
        sizes=(48, other.size),
        proof=tuple(public.oracle().consistency_proof(48, 64)),
        prefix=frontier.hashes,
        leaves=((other.index, other.leaf),),
        second_proof=tuple(other.proof),
    )


def unfrozen(_: type[MisbehavingLog] = RekorV2Log) -> Evidence:
    log = RekorV2Log()
    log.grow(30)
    log.freeze()
    final = log.source().latest()
    log.final = False
    log.grow(5)
    with pytest.raises(LogMisbehaved) as caught:
        advance(TrustedHead(final), log.source().latest(), (), log.source().identity)
    return caught.value.evidence


CASES: dict[str, Callable[[type[MisbehavingLog]], Evidence]] = {
    "two roots for one size": lambda kind: forked(kind, 100, 0),
    "another beginning, shown by the proof": lambda kind: forked(kind, 100, 50),
    "another beginning, shown by a frontier": lambda kind: forked(kind, 64, 50),
    "another first entry": lambda kind: forked(kind, 1, 7),
    "two hashes for one leaf": lambda kind: two_nodes(kind, 20, 20),
    "two hashes for one subtree": lambda kind: two_nodes(kind, 3, 40),
    "two hashes on the right border": lambda kind: two_nodes(kind, 99, 10),
    "a frontier against a proof": frontier_and_node,
}


@kinds
@pytest.mark.parametrize("case", CASES)
def test_both_readers_are_convinced_by_what_the_log_signed_twice(kind: type[MisbehavingLog], case: str) -> None:
    evidence = CASES[case](kind)
    raw = json.dumps(to_document(evidence)).encode()
    assert check_evidence(raw).conclusion.transferable
    assert independent_reader.read(raw, sha256(evidence.spki).hexdigest())
    with pytest.raises(ShowsNothing, match="not the log's"):
        independent_reader.read(raw, "0" * 64)


def test_both_readers_are_convinced_by_a_log_that_grew_after_its_end() -> None:
    raw = json.dumps(to_document(unfrozen())).encode()
    assert check_evidence(raw).conclusion.transferable
    assert "declared final at 30" in (independent_reader.read(raw) or "")


@kinds
def test_both_readers_call_a_swapped_entry_a_record(kind: type[MisbehavingLog]) -> None:
    seen = watch(kind, 100)
    seen.log.grow(10)
    seen.log.swap_leaf(105, seen.log.leaf(4711))
    with pytest.raises(LogMisbehaved) as caught:
        seen.follow()
    raw = json.dumps(to_document(caught.value.evidence)).encode()
    assert not check_evidence(raw).conclusion.transferable
    assert independent_reader.read(raw) is None


@kinds
@pytest.mark.parametrize(("small", "large"), [(60, 120), (64, 120), (1, 2), (120, 120)])
def test_neither_reader_is_convinced_by_an_honest_log(kind: type[MisbehavingLog], small: int, large: int) -> None:
    log = kind()
    log.grow(small)
    one = kept(log, small - 1)
    log.grow(large - small)
    other, identity = kept(log, small // 2), log.source().identity
    proof = log.oracle().consistency_proof(small, large) if small < large else []
    frontier = Frontier().extended(leaf_hash(leaf) for leaf in log.leaves[:small])
    lie = Evidence(
        log="log",
        api=identity.api,
        kind="log-forked",
        detail="a lie",
        spki=identity.spki,
        key_name=identity.key_name,
        heads=(one.head, other.head),
        sizes=(small, large),
        proof=tuple(proof),
    )
    leaves = ((one.index, one.leaf), (other.index, other.leaf))
    for attempt in (
        lie,
        replace(lie, proof=tuple(proof[:-1])),
        replace(lie, prefix=frontier.hashes),
        replace(lie, prefix=frontier.hashes, proof=(), leaves=leaves[1:], second_proof=tuple(other.proof)),
        replace(lie, proof=tuple(one.proof), leaves=leaves, second_proof=tuple(other.proof)),
    ):
        raw = json.dumps(to_document(attempt)).encode()
        assert not check_evidence(raw).conclusion.transferable
        assert independent_reader.read(raw) is None


@kinds
@pytest.mark.parametrize("case", CASES)
def test_both_readers_agree_on_every_file_with_one_thing_changed(kind: type[MisbehavingLog], case: str) -> None:
    good = to_document(CASES[case](kind))
    for field in ("heads", "proof", "secondProof", "prefix"):
        for number in range(len(good[field])):
            bad = copy.deepcopy(good)
            bad[field][number] = b64(_flipped(bad[field][number]))
            assert verdicts(bad) in {(False, False), (True, True)}, (field, number)
            assert field != "heads" or verdicts(bad) == (False, False)
    for number in range(len(good["leaves"])):
        for change in ({"index": good["leaves"][number]["index"] + 1}, {"leaf": b64(b"other")}):
            bad = copy.deepcopy(good)
            bad["leaves"][number] |= change
            assert verdicts(bad) == (False, False)
    for change in ({"heads": good["heads"][:1]}, {"sizes": []}, {"key": {"name": "x", "spki": good["key"]["spki"]}}):
        ours, theirs = verdicts({**copy.deepcopy(good), **change})
        assert ours == theirs, change


def _flipped(text: str) -> bytes:
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return bytes(raw)


def verdicts(document: dict[str, Any]) -> tuple[bool, bool]:
    """Whether our reader and the independent one call it proof."""
    raw = json.dumps(document).encode()
    try:
        ours = check_evidence(raw).conclusion.transferable
    except NotEvidence:
        ours = False
    try:
        theirs = independent_reader.read(raw) is not None
    except ShowsNothing:
        theirs = False
    return ours, theirs


def test_bundles_of_a_split_view_convince_it_too() -> None:
    for kind in (RekorV1Log, RekorV2Log):
        public, hidden = split(kind, 100, 117, 20)
        one, other = (views_in(bundle(entry(log, 30)), trust_root(log))[0] for log in (public, hidden))
        document = to_document(_two_views(_of(one), _of(other), (0, 30), public.source().identity))
        assert verdicts(document) == (True, True)


def _of(view: BundleView) -> KeptView:
    return KeptView("tree", view.head.size, view.head.root, view.head.raw, view.index, view.leaf, view.proof)


def test_it_shares_no_code_with_what_it_judges_and_runs_alone(tmp_path: Path) -> None:
    source = Path(independent_reader.__file__)
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported == {"base64", "cryptography", "hashlib", "json", "struct", "sys", "typing"}
    file = tmp_path / "fork.json"
    file.write_text(json.dumps(to_document(forked(RekorV2Log, 100, 50))))
    command = [sys.executable, "-I", str(source), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert done.stdout == "size 150 does not begin with what was signed for size 100\n"


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", b"7"])
def test_any_other_file_shows_it_nothing(raw: bytes) -> None:
    with pytest.raises(ShowsNothing):
        independent_reader.read(raw)


def test_a_head_by_another_key_shows_it_nothing() -> None:
    for kind in (RekorV1Log, RekorV2Log, CtRfc6962Log, CtStaticLog):
        document = to_document(forked(kind, 100, 0))
        log = kind()
        log.grow(100)
        log.sign_with(ed25519_key(99) if kind is RekorV2Log else ecdsa_key(99))
        if isinstance(log, RekorV1Log):
            raw = log.head_note(100)
        else:
            raw = log.answer("ct/v1/get-sth" if kind is CtRfc6962Log else "checkpoint", {}, None)
        document["heads"][1] = b64(raw)
        assert verdicts(document) == (False, False)
