"""Witnesses are a policy on top of the log's signature: who is missing is known, and nobody is called a liar."""

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.alert import Owner, Severity
from monitor.config import BadConfig, parse_config
from monitor.heads import SignedHead
from monitor.sources.rekor_v2 import RekorV2Source
from monitor.witnesses import (
    MAX_WITNESSES,
    Standing,
    WitnessPolicy,
    follow_up,
    judge,
    read_witnesses,
    witness_alerts,
)
from rules.document import Misplaced, read_yaml
from tests.monitor.harness import NOW
from tests.support.misbehaving_log import RekorV2Log, b64, ed25519_key, spki_of
from tests.threats.watched import Watched, signing
from tlog.cosignature import WitnessKey, cosigned_message
from tlog.merkle import RootHash
from tlog.note import tile_log_key

HOUR = timedelta(hours=1)
NAMES = ("amber.example.org", "beryl.example.org", "coral.example.org")


def witness(name: str, seed: int | None = None) -> WitnessKey:
    raw = key_of(name, seed).public_key().public_bytes_raw()
    return WitnessKey(name, sha256(name.encode() + b"\n\x04" + raw).digest()[:4], raw)


def key_of(name: str, seed: int | None = None) -> Ed25519PrivateKey:
    return ed25519_key(100 + NAMES.index(name) if seed is None else seed)


def vkey(name: str, seed: int | None = None) -> str:
    made = witness(name, seed)
    return f"{name}+{made.key_id.hex()}+{b64(bytes([4]) + made.raw)}"


def cosignature(name: str, text: bytes, seed: int | None = None, cut: int | None = None) -> str:
    blob = witness(name, seed).key_id + NOW_SECONDS.to_bytes(8, "big")
    blob += key_of(name, seed).sign(cosigned_message(text, NOW_SECONDS))
    return f"— {name} {b64(blob[:cut])}\n"


NOW_SECONDS = int(NOW.timestamp())
TWO_OF_THREE = WitnessPolicy(2, tuple(witness(name) for name in NAMES))


def head(*cosigned_by: str, size: int = 5) -> SignedHead:
    return SignedHead("v2", size, RootHash(bytes(32)), b"", cosigned_by=cosigned_by)


def shown_by_a_log(policy: WitnessPolicy, *lines: Callable[[bytes], str]) -> SignedHead:
    """The newest head of a log whose checkpoint carries these lines, as its source reads it."""
    log = RekorV2Log()
    log.grow(5)
    log.extra_signatures = [line(log.note_text(log.host, 5)) for line in lines]
    key = tile_log_key(log.host, spki_of(log.log_key))
    return RekorV2Source(log.source().identity, log, key, policy.witnesses).latest()


def test_real_cosignatures_of_enough_witnesses_meet_the_policy() -> None:
    shown = shown_by_a_log(
        TWO_OF_THREE, lambda text: cosignature(NAMES[0], text), lambda text: cosignature(NAMES[2], text)
    )
    cosigning = judge(TWO_OF_THREE, shown)
    assert cosigning.enough
    assert (cosigning.present, cosigning.missing) == ((NAMES[0], NAMES[2]), (NAMES[1],))


FORGERIES: dict[str, Callable[[bytes], str]] = {
    "over another text": lambda _: cosignature(NAMES[1], b"another text\n"),
    "by another key under the witness's name": lambda text: cosignature(NAMES[1], text, seed=999),
    "by the first witness again": lambda text: cosignature(NAMES[0], text),
    "cut short": lambda text: cosignature(NAMES[1], text, cut=-1),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_cosignature_that_is_none_does_not_count(forgery: str) -> None:
    def honest(text: bytes) -> str:
        return cosignature(NAMES[0], text)

    control = shown_by_a_log(TWO_OF_THREE, honest, lambda text: cosignature(NAMES[1], text))
    assert judge(TWO_OF_THREE, control).enough
    line = FORGERIES[forgery]
    shown = shown_by_a_log(TWO_OF_THREE, honest, line)
    assert not judge(TWO_OF_THREE, shown).enough


def test_two_keys_of_one_witness_count_as_one() -> None:
    policy = WitnessPolicy(1, (witness(NAMES[0]), witness(NAMES[0], 555), witness(NAMES[1])))
    assert policy.names == NAMES[:2]
    shown = shown_by_a_log(
        policy, lambda text: cosignature(NAMES[0], text), lambda text: cosignature(NAMES[0], text, seed=555)
    )
    assert judge(policy, shown).present == (NAMES[0],)


@pytest.mark.parametrize("required", [0, -1, 4])
def test_a_policy_that_nothing_or_everything_meets_is_refused(required: int) -> None:
    WitnessPolicy(3, TWO_OF_THREE.witnesses)
    with pytest.raises(ValueError, match="never"):
        WitnessPolicy(required, TWO_OF_THREE.witnesses)


def test_what_is_missing_keeps_its_since_until_it_is_back() -> None:
    standing = follow_up(TWO_OF_THREE, Standing(), head(NAMES[0], NAMES[1]), NOW)
    assert standing == Standing(((NAMES[2], NOW),), None)
    standing = follow_up(TWO_OF_THREE, standing, head(NAMES[0]), NOW + HOUR)
    assert standing == Standing(((NAMES[1], NOW + HOUR), (NAMES[2], NOW)), NOW + HOUR)
    standing = follow_up(TWO_OF_THREE, standing, head(NAMES[0], size=9), NOW + 2 * HOUR)
    assert standing.short_since == NOW + HOUR
    standing = follow_up(TWO_OF_THREE, standing, head(*NAMES), NOW + 3 * HOUR)
    assert standing == Standing()


def test_too_few_witnesses_for_too_long_is_told_once_a_day_and_never_as_a_lie() -> None:
    short, patience = head(NAMES[1]), 2 * HOUR
    standing = follow_up(TWO_OF_THREE, Standing(), short, NOW)
    for hours in (0, 1, 2):
        assert witness_alerts(TWO_OF_THREE, standing, short, NOW + hours * HOUR, patience) == ()
    (alert,) = witness_alerts(TWO_OF_THREE, standing, short, NOW + 3 * HOUR, patience)
    assert (alert.kind, alert.owner, alert.severity) == ("witness-missing", Owner.COULD_NOT_ASK, Severity.WARN)
    assert ("Cosigned by", NAMES[1]) in alert.facts
    assert ("Missing", f"{NAMES[0]} since {NOW.isoformat()}") in alert.facts
    (again,) = witness_alerts(TWO_OF_THREE, standing, short, NOW + 4 * HOUR, patience)
    (tomorrow,) = witness_alerts(TWO_OF_THREE, standing, short, NOW + 27 * HOUR, patience)
    assert alert.id == again.id != tomorrow.id
    met = follow_up(TWO_OF_THREE, standing, head(*NAMES), NOW + 5 * HOUR)
    assert witness_alerts(TWO_OF_THREE, met, head(*NAMES), NOW + 27 * HOUR, patience) == ()


@given(st.lists(st.sets(st.sampled_from([*NAMES, "stranger.example.org"])), max_size=12))
@settings(max_examples=100, deadline=None)
def test_short_since_is_the_start_of_the_last_unbroken_run_of_too_few(passes: list[set[str]]) -> None:
    standing = Standing()
    for hour, names in enumerate(passes):
        standing = follow_up(TWO_OF_THREE, standing, head(*names), NOW + hour * HOUR)
    enough = [len(names & set(NAMES)) >= 2 for names in passes]
    run = next((n for n, met in enumerate(reversed(enough)) if met), len(enough))
    assert standing.short_since == (NOW + (len(enough) - run) * HOUR if run else None)


GOOD = f"required: 2\nkeys:\n  - {vkey(NAMES[0])}\n  - {vkey(NAMES[1])}\n"
BAD = {
    "no required": f"keys: [{vkey(NAMES[0])}]",
    "no keys": "required: 1",
    "an unknown key": GOOD + "needed: 2\n",
    "required of none": GOOD.replace("required: 2", "required: 0"),
    "required of too many": GOOD.replace("required: 2", "required: 3"),
    "required in words": GOOD.replace("required: 2", "required: two"),
    "a key twice": GOOD + f"  - {vkey(NAMES[0])}\n",
    "a key id of another name": GOOD.replace(NAMES[0], "other.example.org"),
    "not base64": GOOD.replace("+B", "+*"),
    "a key of the log's type": GOOD.replace(vkey(NAMES[0]), vkey(NAMES[0]).rsplit("+", 1)[0] + "+" + b64(bytes(33))),
    "a list": "- 1",
    "too many": "required: 1\nkeys: [" + ", ".join([vkey(NAMES[0])] * (MAX_WITNESSES + 1)) + "]",
}


def test_the_policy_is_read_from_the_configuration() -> None:
    policy = read_witnesses(read_yaml(GOOD))
    assert policy == WitnessPolicy(2, (witness(NAMES[0]), witness(NAMES[1])))


@pytest.mark.parametrize("wrong", BAD)
def test_a_policy_that_cannot_be_read_says_where(wrong: str) -> None:
    read_witnesses(read_yaml(GOOD))
    with pytest.raises(Misplaced) as caught:
        read_witnesses(read_yaml(BAD[wrong]))
    assert caught.value.problem.line >= 1


CONFIGURED = """\
version: 1
database: signwatch.db
trust: {{trusted_root: trusted_root.json}}
logs: [{{name: v2, url: "http://localhost:1", api: {api}, witnesses: {{required: 1, keys: [{keys}]}}}}]
rules: rules.yaml
"""


def test_a_log_in_the_configuration_may_name_its_witnesses() -> None:
    keys = ", ".join(vkey(name) for name in NAMES)
    config = parse_config(CONFIGURED.format(api="rekor-v2", keys=keys), Path("signwatch.yaml"))
    assert config.logs is not None
    assert config.logs[0].witnesses == WitnessPolicy(1, TWO_OF_THREE.witnesses)
    for api in ("rekor-v1", "ct-rfc6962", "ct-static"):
        with pytest.raises(BadConfig, match="witnesses"):
            parse_config(CONFIGURED.format(api=api, keys=keys), Path("signwatch.yaml"))


def test_a_watched_log_without_enough_witnesses_is_followed_and_told_of(tmp_path: Path) -> None:
    log = RekorV2Log([signing(number=number) for number in range(3)])
    watched = Watched(log, tmp_path, witnesses=TWO_OF_THREE)

    def witnessed_by(*names: str) -> None:
        log.append(signing(number=len(log.leaves)))
        text = log.note_text(log.host, log.size)
        log.extra_signatures = [cosignature(name, text) for name in names]

    for hours, names in enumerate([NAMES, NAMES[:2], NAMES[:1], NAMES[:1], (), NAMES[1:], NAMES[:1]]):
        witnessed_by(*names)
        assert watched.run().owner is None, "it is followed all the same"
        assert watched.read == len(log.leaves)
        # Short since the third pass, two hours ago in the fifth: longer than the hour it may take.
        assert watched.alerts() == (["witness-missing"] if hours >= 4 else [])
        watched.clock.pass_by(hours=1)
    assert watched.evidence() == []
    watched.check()
    watched.store.close()
