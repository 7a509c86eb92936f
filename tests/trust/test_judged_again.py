"""An authority that takes over signs before the trust root names it: what it signed until then is not lost.

The authority is ca-lite's own, and so is the TUF repository it publishes its chains in.
"""

import json
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from alerts.alert import Alert
from ca_lite.chains import IssuedCertificate, make_intermediate
from ca_lite.keys import chain_pem, generate, read_chain, read_private_key, write_private_key
from ca_lite.settings import Layout, load_settings
from ca_lite.setup import initialise, write_trust
from ca_lite.tuf_repository import publish_targets
from monitor.daemon.assembly import Monitor
from monitor.daemon.daemon import Daemon
from monitor.model.log_source import Position
from monitor.model.state import Batch
from monitor.store.reading import Reading
from tests.support.entries import Authority, github_claims, hashedrekord_v2, make_ca, make_certificate, make_key
from tests.support.misbehaving_log import RekorV2Log, b64, spki_of
from tests.support.served_log import ISSUER, ServedLog
from tests.support.trust_world import World, passes, told, trusted_root

TAG, BRANCH = "refs/tags/v1.2.3", "refs/heads/stranger"
SELF_MADE = make_ca("self-made", name="nobody.example")


class CaLite:
    """A ca-lite whose TUF repository is the one that the world serves."""

    def __init__(self, world: World, served: ServedLog) -> None:
        self.world = world
        trust = world.folder / "log-trust.json"
        tlogs = json.loads(trusted_root([served]))["tlogs"]
        key = b64(spki_of(make_key("ct")))
        ctlog = {"baseUrl": "http://127.0.0.1:1/ct", "publicKey": {"rawBytes": key}, "logId": {"keyId": key}}
        trust.write_text(json.dumps({"tlogs": tlogs, "ctlogs": [ctlog], "rekorTlogUrls": []}))
        self.layout: Layout = initialise(
            world.folder / "ca",
            "http://localhost:8080",
            trust,
            world.clock.now,
            organization="acme",
            key_kind="p256",
            passphrase=None,
        )
        for name, ours in (("repository", self.layout.tuf), ("keys", self.layout.tuf_keys)):
            shutil.rmtree(world.folder / name)
            (world.folder / name).symlink_to(ours)

    @property
    def authority(self) -> Authority:
        """Who issues certificates now."""
        key = read_private_key(self.layout.private / "ca.pem")
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        issuer, root = read_chain(self.layout.chains / "ca.pem")
        return Authority("acme", key, issuer, root)

    def take_over(self) -> None:
        """Another intermediate issues from now on; the trust files do not say so yet."""
        now, chains = self.world.clock.now, self.layout.chains
        root = IssuedCertificate(self.authority.root, read_private_key(self.layout.private / "ca-root.pem"))
        made = make_intermediate(root, "acme", "acme intermediate 2", generate("p256"), now)
        retired = chains / f"ca-retired-{int((now + timedelta(hours=1)).timestamp())}.pem"
        retired.write_bytes((chains / "ca.pem").read_bytes())
        (self.layout.private / "ca.pem").rename(self.layout.private / "ca-retired.pem")
        write_private_key(self.layout.private / "ca.pem", made.key)
        (chains / "ca.pem").write_text(chain_pem((made.certificate, root.certificate)))

    def publish(self) -> None:
        write_trust(self.layout, load_settings(self.layout), self.world.clock.now)


def signed(ref: str, ca: Authority, at: datetime) -> bytes:
    san = f"https://github.com/acme/widget/.github/workflows/release.yml@{ref}"
    claims = github_claims(ref=ref) | {"source_repository_ref": ref}
    return hashedrekord_v2(make_certificate(ca, san=san, issuer=ISSUER, claims=claims, not_before=at))


@pytest.fixture
def site(world: World) -> tuple[World, CaLite, ServedLog]:
    served = world.log("one", RekorV2Log())
    return world, CaLite(world, served), served


def begin(world: World, served: ServedLog) -> tuple[Monitor, Daemon]:
    return world.begin(only(served))


def only(served: ServedLog) -> str:
    """The certificate log of this trust root is not there."""
    return f'logs: [{{name: mine, api: rekor-v2, url: "{served.url}"}}]'


def outcomes(monitor: Monitor) -> list[str]:
    found = sorted(Reading(monitor.store.database).findings(1000), key=lambda each: each.index)
    return [each.outcome for each in found]


def signings(monitor: Monitor) -> list[str]:
    return told(monitor, "unexpected-signing", "unverified-signing")


def sign_by_all(world: World, ca: CaLite, served: ServedLog) -> None:
    now = world.clock.now
    served.log.append(signed(TAG, ca.authority, now))
    served.log.append(signed(BRANCH, ca.authority, now))
    served.log.append(signed(BRANCH, SELF_MADE, now))
    served.log.timestamp = int(now.timestamp() * 1000)


def test_what_an_authority_signed_before_its_rotation_was_seen_is_judged_when_it_is(
    site: tuple[World, CaLite, ServedLog],
) -> None:
    world, ca, served = site
    monitor, daemon = begin(world, served)
    sign_by_all(world, ca, served)
    passes(monitor)
    assert outcomes(monitor) == ["expected", "unexpected", "unverified"], "control: before the rotation"
    ca.take_over()
    world.clock.advance(minutes=1)
    sign_by_all(world, ca, served)
    passes(monitor)
    daemon.heartbeat()
    assert outcomes(monitor)[3:] == ["unverified"] * 3
    assert signings(monitor) == ["unexpected-signing", "unverified-signing"]

    ca.publish()
    daemon.refresh_trust()
    daemon.heartbeat()
    assert outcomes(monitor)[3:] == ["expected", "unexpected", "unverified"]
    assert signings(monitor) == ["unexpected-signing"] * 2 + ["unverified-signing"]
    [first, *_] = [
        each for each in Reading(monitor.store.database).alerts(9) if each.alert.kind == "unexpected-signing"
    ]
    assert first.alert.index == 4
    assert first.deliveries == {"file": "pending"}
    for _ in range(2):
        monitor, daemon = world.start(only(served))
        world.clock.advance(minutes=20)
        daemon.refresh_trust()
        daemon.heartbeat()
    assert signings(monitor) == ["unexpected-signing"] * 2 + ["unverified-signing"], "told once"
    [found] = [each for each in Reading(monitor.store.database).findings(9) if each.index == 4]
    assert found.signing["signers"][0]["trust"] == "trusted"
    assert daemon.reasons() == []


def test_a_rotation_while_the_daemon_is_down_is_made_up_for_at_the_start(site: tuple[World, CaLite, ServedLog]) -> None:
    world, ca, served = site
    monitor, _ = begin(world, served)
    ca.take_over()
    sign_by_all(world, ca, served)
    passes(monitor)
    world.running.close()
    ca.publish()
    world.clock.advance(days=2)
    monitor, daemon = world.start(only(served))
    daemon.heartbeat()
    assert outcomes(monitor) == ["expected", "unexpected", "unverified"]
    assert signings(monitor) == ["unexpected-signing", "unverified-signing"]


def test_what_is_judged_by_the_old_root_and_committed_after_the_new_one_is_judged_again(
    site: tuple[World, CaLite, ServedLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass may be under way when the root changes: what it commits then was not there to be woken."""
    world, ca, served = site
    monitor, daemon = begin(world, served)
    ca.take_over()
    sign_by_all(world, ca, served)
    advance = monitor.store.advance

    def late(old: Position, new: Position, batch: Batch, alerts: Sequence[Alert]) -> None:
        if batch.findings:
            ca.publish()
            daemon.refresh_trust()
            daemon.heartbeat()
        advance(old, new, batch, alerts)

    with monkeypatch.context() as patch:
        patch.setattr(monitor.store, "advance", late)
        passes(monitor)
    assert outcomes(monitor) == ["unverified"] * 3, "control: the old root judged"
    world.clock.advance(minutes=15)
    daemon.heartbeat()
    assert outcomes(monitor) == ["expected", "unexpected", "unverified"]


def test_many_that_nobody_vouches_for_are_looked_at_in_small_steps_and_then_left_alone(
    site: tuple[World, CaLite, ServedLog],
) -> None:
    world, ca, served = site
    monitor, daemon = begin(world, served)
    world.clock.advance(minutes=20)
    body = signed(BRANCH, SELF_MADE, world.clock.now)
    for _ in range(700):
        served.log.append(body)
    ca.take_over()
    served.log.append(signed(BRANCH, ca.authority, world.clock.now))
    passes(monitor)
    assert waiting(monitor) == (701, 0)
    ca.publish()
    daemon.refresh_trust()
    steps = []
    for _ in range(4):
        daemon.heartbeat()
        world.clock.advance(minutes=16)
        steps.append(waiting(monitor)[1])
    assert steps[-1] == 0, f"in the end nothing is due: {steps}"
    assert outcomes(monitor) == ["unverified"] * 700 + ["unexpected"]
    assert waiting(monitor) == (700, 0)


def waiting(monitor: Monitor) -> tuple[int, int]:
    """How many findings wait, and how many of them are due now."""
    with monitor.store.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT count(*) FROM recheck").scalar_one()
        due = connection.exec_driver_sql("SELECT count(*) FROM recheck WHERE due_at < 250000000000000000").scalar_one()
    return rows, due


def test_an_authority_that_is_gone_wakes_nobody(site: tuple[World, CaLite, ServedLog]) -> None:
    world, ca, served = site
    monitor, daemon = begin(world, served)
    world.clock.advance(minutes=20)
    sign_by_all(world, ca, served)
    passes(monitor)
    before = waiting(monitor)
    targets = {"trusted_root.json": trusted_root([served], [])}
    publish_targets(ca.layout.tuf, ca.layout.tuf_keys, targets, world.clock.now)
    daemon.refresh_trust()
    assert told(monitor, "trust-changed") != []
    assert waiting(monitor) == before == (1, 0)
