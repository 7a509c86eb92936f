"""Witnesses are a policy on top of the log's signature: who is missing is known, and held against no party."""

from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.alert import Alert, Owner, Severity, rfc3339
from monitor.commands.audit import document_of
from monitor.commands.junit import junit
from monitor.commands.outcomes import TimedResult, one_line, verdict
from monitor.commands.terminal import Exit
from monitor.config import parse_config
from monitor.daemon.pass_result import PassResult
from monitor.judging.reevaluation import RecheckCounts
from monitor.logs.rekor_v2 import RekorV2Source
from monitor.model.errors import BadConfig
from monitor.model.log_source import SignedHead
from monitor.model.witness_policy import (
    MAX_WITNESSES,
    Cosigning,
    WitnessPolicy,
    WitnessReport,
    WitnessStatus,
    follow_up,
    judge,
    read_witnesses,
)
from monitor.raising.log_alerts import witness_alerts
from settings.document import Misplaced, read_yaml
from tests.support.harness import NOW
from tests.support.misbehaving_log import RekorV2Log, b64, ed25519_key, spki_of
from tests.threats.watched import Watched, signing
from tlog.cosignature import WitnessKey, cosigned_message, cosigned_tree, parse_witness_vkey
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


NOW_SECONDS = int(NOW.timestamp())


def cosignature(name: str, text: bytes, seed: int | None = None, cut: int | None = None, at: int = NOW_SECONDS) -> str:
    blob = witness(name, seed).key_id + at.to_bytes(8, "big")
    blob += key_of(name, seed).sign(cosigned_message(text, at))
    return f"— {name} {b64(blob[:cut])}\n"


TWO_OF_THREE = WitnessPolicy(2, tuple(witness(name) for name in NAMES))


def head(*cosigned_by: str, at: datetime = NOW, size: int = 5) -> SignedHead:
    """A head that these witnesses cosigned at that time."""
    return SignedHead(
        "v2", size, RootHash(bytes(32)), b"", cosigned_by=cosigned_by, cosigned_at=(at,) * len(cosigned_by)
    )


def judged(policy: WitnessPolicy, shown: SignedHead, now: datetime = NOW) -> Cosigning:
    return judge(policy, shown, now, HOUR)


def after(status: WitnessStatus, *names: str, hours: int) -> WitnessStatus:
    """The status after a head that these witnesses cosigned just now."""
    now = NOW + hours * HOUR
    return follow_up(TWO_OF_THREE, status, judged(TWO_OF_THREE, head(*names, at=now), now), now)


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
    cosigning = judged(TWO_OF_THREE, shown)
    assert cosigning.enough
    assert (cosigning.present, cosigning.missing) == ((NAMES[0], NAMES[2]), (NAMES[1],))


def test_a_post_quantum_witness_counts_beside_an_ed25519_one() -> None:
    name, key = "large.example.org", mldsa.MLDSA44PrivateKey.from_seed_bytes(sha256(b"large").digest())
    raw = key.public_key().public_bytes_raw()
    key_id = sha256(name.encode() + b"\n\x06" + raw).digest()[:4]
    large = parse_witness_vkey(f"{name}+{key_id.hex()}+{b64(bytes([6]) + raw)}")
    policy = WitnessPolicy(2, (witness(NAMES[0]), large))

    def cosigned(text: bytes, at: int = NOW_SECONDS) -> str:
        origin, size, root = text.decode().split("\n")[:3]
        message = cosigned_tree(name, at, origin, int(size), b64decode(root))
        return f"— {name} {b64(key_id + at.to_bytes(8, 'big') + key.sign(message))}\n"

    shown = shown_by_a_log(policy, partial(cosignature, NAMES[0]), cosigned)
    assert judged(policy, shown).present == (NAMES[0], name)
    late = shown_by_a_log(policy, partial(cosignature, NAMES[0]), partial(cosigned, at=NOW_SECONDS - 2 * 3600))
    assert judged(policy, late).missing == (name,)


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
    assert judged(TWO_OF_THREE, control).enough
    line = FORGERIES[forgery]
    shown = shown_by_a_log(TWO_OF_THREE, honest, line)
    assert not judged(TWO_OF_THREE, shown).enough


def test_two_keys_of_one_witness_count_as_one() -> None:
    policy = WitnessPolicy(1, (witness(NAMES[0]), witness(NAMES[0], 555), witness(NAMES[1])))
    assert policy.names == NAMES[:2]
    shown = shown_by_a_log(
        policy, lambda text: cosignature(NAMES[0], text), lambda text: cosignature(NAMES[0], text, seed=555)
    )
    assert judged(policy, shown).present == (NAMES[0],)


@pytest.mark.parametrize("required", [0, -1, 4])
def test_a_policy_that_nothing_or_everything_meets_is_refused(required: int) -> None:
    WitnessPolicy(3, TWO_OF_THREE.witnesses)
    with pytest.raises(ValueError, match="never"):
        WitnessPolicy(required, TWO_OF_THREE.witnesses)


def test_what_is_missing_keeps_its_since_until_it_is_back() -> None:
    status = after(WitnessStatus(), NAMES[0], NAMES[1], hours=0)
    assert status == WitnessStatus(((NAMES[2], NOW),), None)
    status = after(status, NAMES[0], hours=1)
    assert status == WitnessStatus(((NAMES[1], NOW + HOUR), (NAMES[2], NOW)), NOW + HOUR)
    status = after(status, NAMES[0], hours=2)
    assert status.short_since == NOW + HOUR
    status = after(status, *NAMES, hours=3)
    assert status == WitnessStatus()


def test_a_cosignature_counts_for_as_long_as_a_head_does() -> None:
    """A replayed head comes with its cosignatures: when they were made is signed."""
    shown = head(*NAMES)
    for hours, enough in ((0, True), (1, True), (2, False)):
        assert judged(TWO_OF_THREE, shown, NOW + hours * HOUR).enough is enough
    assert judge(TWO_OF_THREE, shown, NOW + 99 * HOUR, None).enough, "of a log that is over none newer is expected"
    assert not judged(TWO_OF_THREE, shown, NOW - HOUR).enough, "a witness from the future"
    assert judged(TWO_OF_THREE, shown, NOW - timedelta(minutes=5)).enough, "clocks differ a little"
    now = NOW + 2 * HOUR
    status = follow_up(TWO_OF_THREE, WitnessStatus(), judged(TWO_OF_THREE, shown, now), now)
    assert status == WitnessStatus(tuple((name, NOW) for name in NAMES), NOW), "missing since they last cosigned"


def test_the_policy_was_last_met_when_the_kth_newest_cosignature_was_made() -> None:
    ages = dict(zip(NAMES, (1, 2, 3), strict=True))
    shown = SignedHead(
        "v2", 5, RootHash(bytes(32)), b"", cosigned_by=NAMES, cosigned_at=tuple(NOW - n * HOUR for n in ages.values())
    )
    status = follow_up(TWO_OF_THREE, WitnessStatus(), judged(TWO_OF_THREE, shown), NOW)
    assert status.short_since == NOW - 2 * HOUR
    assert dict(status.missing_since) == {NAMES[1]: NOW - 2 * HOUR, NAMES[2]: NOW - 3 * HOUR}


@pytest.mark.parametrize("seconds", [0, 1, 2**63, 2**64 - 1])
def test_a_cosignature_of_no_time_that_could_be_vouches_for_nothing(seconds: int) -> None:
    control = shown_by_a_log(TWO_OF_THREE, *(partial(cosignature, name) for name in NAMES))
    assert judged(TWO_OF_THREE, control).enough
    odd = shown_by_a_log(TWO_OF_THREE, *(partial(cosignature, name, at=seconds) for name in NAMES))
    assert judged(TWO_OF_THREE, odd).present == ()


def alerts(status: WitnessStatus, shown: SignedHead, now: datetime, patience: timedelta) -> Sequence[Alert]:
    witnessed = WitnessReport(2, judged(TWO_OF_THREE, shown, now), status)
    return witness_alerts(TWO_OF_THREE, witnessed, shown, now, patience)


def test_too_few_witnesses_for_too_long_is_told_once_a_day_and_never_as_a_lie() -> None:
    patience = 2 * HOUR
    status = after(WitnessStatus(), NAMES[1], hours=0)
    for hours in (0, 1, 2):
        assert alerts(status, head(NAMES[1]), NOW + hours * HOUR, patience) == ()
    now = NOW + 3 * HOUR
    (alert,) = alerts(status, head(NAMES[1], at=now), now, patience)
    assert (alert.kind, alert.owner, alert.severity) == ("witness-missing", Owner.COULD_NOT_ASK, Severity.WARN)
    assert ("Cosigned by", NAMES[1]) in alert.facts
    assert ("Missing", f"{NAMES[0]} since {rfc3339(NOW)}") in alert.facts
    (again,) = alerts(status, head(NAMES[1]), NOW + 4 * HOUR, patience)
    (tomorrow,) = alerts(status, head(NAMES[1]), NOW + 27 * HOUR, patience)
    assert alert.id == again.id != tomorrow.id
    met = after(status, *NAMES, hours=5)
    assert alerts(met, head(*NAMES, at=NOW + 27 * HOUR), NOW + 27 * HOUR, patience) == ()


@given(st.lists(st.sets(st.sampled_from([*NAMES, "stranger.example.org"])), max_size=12))
@settings(max_examples=100, deadline=None)
def test_short_since_is_the_start_of_the_last_unbroken_run_of_too_few(passes: list[set[str]]) -> None:
    status = WitnessStatus()
    for hour, names in enumerate(passes):
        status = after(status, *sorted(names), hours=hour)
    enough = [len(names & set(NAMES)) >= 2 for names in passes]
    run = next((n for n, met in enumerate(reversed(enough)) if met), len(enough))
    assert status.short_since == (NOW + (len(enough) - run) * HOUR if run else None)


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


@dataclass
class Cosigned:
    """A watched log whose every head is cosigned by whom the test says."""

    folder: Path

    def __post_init__(self) -> None:
        self.log = RekorV2Log([signing(number=number) for number in range(3)])
        self.watched = Watched(self.log, self.folder, witnesses=TWO_OF_THREE)

    def look(self, *names: str, grow: bool = True) -> PassResult:
        """One pass over a head that these witnesses cosigned just now."""
        now = int(self.watched.clock.now.timestamp())
        if grow:
            self.log.append(signing(number=len(self.log.leaves)))
        text = self.log.note_text(self.log.host, self.log.size)
        self.log.extra_signatures = [cosignature(name, text, at=now) for name in names]
        return self.watched.run()


@pytest.fixture
def cosigned(tmp_path: Path) -> Iterator[Cosigned]:
    made = Cosigned(tmp_path)
    yield made
    made.watched.check()
    made.watched.store.close()


def test_a_watched_log_without_enough_witnesses_is_followed_and_told_of(cosigned: Cosigned) -> None:
    watched = cosigned.watched
    for hours, names in enumerate([NAMES, NAMES[:2], NAMES[:1], NAMES[:1], (), NAMES[1:], NAMES[:1]]):
        assert cosigned.look(*names).owner is None, "it is followed all the same"
        assert watched.read == len(cosigned.log.leaves)
        # Short since the third pass, two hours ago in the fifth: longer than the hour it may take.
        assert watched.alerts() == (["witness-missing"] if hours >= 4 else [])
        watched.clock.pass_by(hours=1)
    assert watched.evidence() == []


def test_a_restart_does_not_forget_since_when_witnesses_are_missing(cosigned: Cosigned) -> None:
    watched = cosigned.watched
    cosigned.look(*NAMES)
    began = watched.clock.now
    for _ in range(2):
        cosigned.look(NAMES[0])
        assert watched.alerts() == []
        watched.restart()
        watched.clock.pass_by(minutes=40)
    outcome = cosigned.look(NAMES[0])
    assert watched.alerts() == ["witness-missing"]
    assert outcome.witnessed is not None
    assert outcome.witnessed.status == WitnessStatus(((NAMES[1], began), (NAMES[2], began)), began)
    watched.restart()
    cosigned.look(*NAMES)
    assert watched.store.witnesses.status("v2") == WitnessStatus()


def test_a_wait_that_nobody_asks_for_any_more_is_forgotten(cosigned: Cosigned) -> None:
    cosigned.look(NAMES[0])
    assert cosigned.watched.store.witnesses.status("v2").short_since is not None
    cosigned.watched.witnesses = None
    cosigned.watched.restart()
    assert cosigned.look().witnessed is None
    assert cosigned.watched.store.witnesses.status("v2") == WitnessStatus()


def test_a_replayed_head_is_not_vouched_for_by_the_cosignatures_it_had(cosigned: Cosigned) -> None:
    watched = cosigned.watched
    assert witnessed_by(cosigned.look(*NAMES)) == NAMES
    watched.clock.pass_by(hours=2)
    assert witnessed_by(watched.run()) == ()
    assert sorted(watched.alerts()) == ["log-stale", "witness-missing"]
    assert witnessed_by(cosigned.look(*NAMES, grow=False)) == NAMES, "the same head, cosigned anew"


def test_a_frozen_log_needs_no_newer_cosignatures(cosigned: Cosigned) -> None:
    cosigned.look(*NAMES)
    cosigned.log.freeze()
    text = cosigned.log.note_text(cosigned.log.host, cosigned.log.size, [cosigned.log.freeze_line])
    now = int(cosigned.watched.clock.now.timestamp())
    cosigned.log.extra_signatures = [cosignature(name, text, at=now) for name in NAMES]
    assert witnessed_by(cosigned.watched.run()) == NAMES
    cosigned.watched.clock.pass_by(days=30)
    assert witnessed_by(cosigned.watched.run()) == NAMES
    assert cosigned.watched.alerts() == []


def witnessed_by(outcome: PassResult) -> tuple[str, ...]:
    assert outcome.witnessed is not None
    return outcome.witnessed.cosigning.present


def test_too_few_cosignatures_are_in_every_report_and_leave_it_unfinished(cosigned: Cosigned) -> None:
    """Not a lie, not fine: exit code 3, in a line for people, for JUnit and for scripts."""
    fine, short = cosigned.look(*NAMES), cosigned.look(NAMES[2])
    assert verdict([fine], RecheckCounts()) is Exit.FINE
    assert verdict([short], RecheckCounts()) is Exit.UNFINISHED
    assert "too few cosignatures: cosigned by 1 of 2 wanted witnesses; missing: amber.example.org since" in one_line(
        short
    )
    assert "cosignatures" not in one_line(fine)
    document = document_of(short)["witnesses"]
    assert (document["enough"], document["required"], document["cosigned_by"]) == (False, 2, [NAMES[2]])
    assert [each["witness"] for each in document["missing"]] == [*NAMES[:2]]
    suite = ET.fromstring(junit([TimedResult(fine, 0.1), TimedResult(short, 0.1)], RecheckCounts(), NOW))
    assert [(each.tag, each.attrib["type"]) for each in suite.iter() if "type" in each.attrib] == [
        ("error", "witness-missing")
    ]


def test_misbehaviour_outweighs_missing_witnesses(cosigned: Cosigned) -> None:
    short = cosigned.look()
    short.findings["unexpected"] = 1
    assert verdict([short], RecheckCounts()) is Exit.MISBEHAVED
