"""What a log signed about an entry in a bundle: a control that verifies, and nothing else does."""

import copy
import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigstore_entries.logged_entry import (
    NoProof,
    NotLogged,
    UnknownLog,
    checkpoint_of,
    entry_timestamp,
    log_of,
    proven_entry,
    timestamp_statement,
)
from tests.support.bundles import entry, log_id
from tests.support.misbehaving_log import MisbehavingLog, RekorV1Log, RekorV2Log, b64, sign, spki_of

AT: Final = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Key:
    spki: bytes
    log_id: bytes
    valid_from: datetime | None = None
    valid_until: datetime | None = None


def a_log(kind: type[MisbehavingLog], entries: int = 9) -> tuple[MisbehavingLog, Key]:
    log = kind()
    log.grow(entries)
    return log, Key(spki_of(log.log_key), log_id(log))


def promised(log: MisbehavingLog, index: int, at: datetime = AT) -> dict[str, Any]:
    """An entry of a bundle with the log's promise beside the proof."""
    seconds = int(at.timestamp())
    statement = timestamp_statement(log.leaves[index], seconds, log_id(log), index)
    told = {"inclusionPromise": {"signedEntryTimestamp": b64(sign(log.log_key, statement))}}
    return entry(log, index) | told | {"integratedTime": str(seconds)}


@pytest.mark.parametrize("kind", [RekorV1Log, RekorV2Log])
def test_what_the_log_signed_verifies_at_every_index_and_size(kind: type[MisbehavingLog]) -> None:
    log, key = a_log(kind)
    for size in range(1, 10):
        for index in range(size):
            found = proven_entry(entry(log, index, size), key)
            assert (found.index, found.body, found.checkpoint.size) == (index, log.leaves[index], size)
            assert found.is_rekor_v1 is (kind is RekorV1Log)
            assert found.tree_name == found.checkpoint.origin


def test_a_promise_is_verified_with_the_time_at_which_the_key_was_valid() -> None:
    log, key = a_log(RekorV1Log)
    stamp = entry_timestamp(promised(log, 4), key)
    assert stamp is not None
    assert stamp.at == AT
    assert entry_timestamp(entry(log, 4), key) is None, "none is no promise"
    later, earlier = AT + timedelta(seconds=1), AT - timedelta(seconds=1)
    at_the_ends = entry_timestamp(promised(log, 4), dataclasses.replace(key, valid_from=AT, valid_until=AT))
    assert at_the_ends is not None
    for outside in (dataclasses.replace(key, valid_from=later), dataclasses.replace(key, valid_until=earlier)):
        with pytest.raises(NotLogged, match="was not valid"):
            entry_timestamp(promised(log, 4), outside)
    with pytest.raises(NotLogged, match="not the log's"):
        entry_timestamp(promised(log, 4) | {"integratedTime": str(int(later.timestamp()))}, key)


def _with(path: tuple[str, ...], value: Any) -> Any:
    def change(told: dict[str, Any]) -> dict[str, Any]:
        changed = copy.deepcopy(told)
        at = changed
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value
        return changed

    return change


@pytest.mark.parametrize("kind", [RekorV1Log, RekorV2Log])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_with(("inclusionProof", "logIndex"), "5"), "does not lead"),
        (_with(("inclusionProof", "logIndex"), "-1"), "garbles"),
        (_with(("inclusionProof", "rootHash"), b64(bytes(32))), "another root"),
        (_with(("inclusionProof", "hashes"), []), "does not lead"),
        (_with(("inclusionProof", "hashes"), [b64(b"short")]), "does not lead"),
        (_with(("canonicalizedBody",), b64(b"another body")), "does not lead"),
        (_with(("inclusionProof", "checkpoint", "envelope"), "no note at all"), "cannot be read"),
        (_with(("inclusionProof", "checkpoint", "envelope"), 7), "cannot be read"),
        (_with(("inclusionProof", "hashes"), 7), "garbles"),
        (_with(("canonicalizedBody",), None), "garbles"),
    ],
)
def test_a_changed_field_proves_nothing(kind: type[MisbehavingLog], change: Any, why: str) -> None:
    log, key = a_log(kind)
    with pytest.raises(NotLogged, match=why):
        proven_entry(change(entry(log, 4)), key)


def test_a_checkpoint_of_another_log_or_key_proves_nothing() -> None:
    log, key = a_log(RekorV2Log)
    mine = entry(log, 4)
    with pytest.raises(UnknownLog):
        log_of(mine, [dataclasses.replace(key, log_id=bytes(32))])
    other = a_log(RekorV1Log)[0].log_key
    with pytest.raises(NotLogged):
        proven_entry(mine, dataclasses.replace(key, spki=spki_of(other)))
    text = mine["inclusionProof"]["checkpoint"]["envelope"]
    with pytest.raises(NotLogged):
        proven_entry(_with(("inclusionProof", "checkpoint", "envelope"), "evil" + text)(mine), key)


@pytest.mark.parametrize("proof", [None, {}, {"checkpoint": None}, {"checkpoint": {"envelope": ""}}])
def test_an_entry_without_a_checkpoint_is_told_apart(proof: Any) -> None:
    log, key = a_log(RekorV1Log)
    with pytest.raises(NoProof):
        checkpoint_of(entry(log, 4) | {"inclusionProof": proof})
    with pytest.raises(NoProof):
        proven_entry(entry(log, 4) | {"inclusionProof": proof}, key)


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | st.just("AAAA"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PATHS: Final = (
    ("logId",),
    ("logId", "keyId"),
    ("logIndex",),
    ("integratedTime",),
    ("inclusionPromise",),
    ("inclusionPromise", "signedEntryTimestamp"),
    ("inclusionProof",),
    ("inclusionProof", "logIndex"),
    ("inclusionProof", "rootHash"),
    ("inclusionProof", "hashes"),
    ("inclusionProof", "checkpoint"),
    ("inclusionProof", "checkpoint", "envelope"),
    ("canonicalizedBody",),
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PATHS), JSON, st.booleans())
def test_any_value_in_any_field_is_refused_with_the_declared_error_or_changes_nothing(
    path: tuple[str, ...], value: Any, is_v1: bool
) -> None:
    log, key = a_log(RekorV1Log if is_v1 else RekorV2Log)
    told = promised(log, 4)
    changed = _with(path, value)(told)
    try:
        assert log_of(changed, [key]) is key
        assert proven_entry(changed, key).body == log.leaves[4]
        stamp = entry_timestamp(changed, key)
    except NotLogged:
        return
    assert stamp is None or stamp.at == AT
