"""A TUF repository, logs over HTTP, and a monitor put together in a folder, and again after a restart."""

import base64
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from ca_lite.tuf_repository import publish_targets
from monitor.config import load_config
from monitor.daemon.assembly import Monitor, assemble
from monitor.daemon.daemon import Daemon
from monitor.daemon.pass_result import PassResult
from monitor.following.follower import Timing
from monitor.store.database import create
from monitor.store.reading import Reading
from monitor.telemetry.prometheus import PrometheusMeter
from tests.support.alerts import NOW
from tests.support.entries import Authority, make_ca
from tests.support.misbehaving_log import PrivateKey, RekorV2Log, ed25519_key, spki_of
from tests.support.parts import Clock
from tests.support.served_log import CA, RULES, ServedLog, serving, signing_body
from tlog.note import tile_log_key

CONFIG = """\
version: 1
database: signwatch.db
trust: {{tuf: "{url}", tuf_root: root.json}}
rules: rules.yaml
channels: {{file: {{type: jsonl, path: alerts.jsonl}}}}
notify: [file]
objectives: {{examine_processes: 1}}
{more}
"""
OTHER_CA = make_ca("rotated", name="rotated.example")


class KeyedLog(RekorV2Log):
    """A log with a key of its own."""

    seed = 5

    @property
    def log_key(self) -> PrivateKey:
        return ed25519_key(self.seed)


def keyed(seed: int, leaves: Sequence[bytes], prefix: str = "") -> KeyedLog:
    """A log of the key that `seed` gives, below a path."""
    log = KeyedLog(leaves, prefix)
    log.seed = seed
    log.sign_with(ed25519_key(seed))
    return log


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@dataclass
class World:
    """A TUF repository, logs, and a folder in which a monitor is put together, and again after a restart."""

    folder: Path
    url: str
    parts: ExitStack
    clock: Clock = field(default_factory=Clock)
    running: ExitStack = field(default_factory=ExitStack)

    def log(self, name: str, log: RekorV2Log | None = None) -> ServedLog:
        """Serve a log with three expected signings in it, or this one."""
        served = log or RekorV2Log([signing_body()] * 3)
        served.host = "127.0.0.1"
        served.timestamp = int(self.clock.now.timestamp() * 1000)
        return ServedLog(served, self.parts.enter_context(serving(served)), self.folder / name)

    def publish(
        self,
        logs: Sequence[ServedLog | tuple[ServedLog, datetime]],
        authorities: Sequence[Authority] = (CA,),
        services: Sequence[str] | None = None,
    ) -> None:
        targets = {"trusted_root.json": trusted_root(logs, authorities)}
        if services is not None:
            named = [
                {"url": url, "majorApiVersion": 2, "validFor": {"start": "2020-01-01T00:00:00Z"}} for url in services
            ]
            document = {"mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json", "rekorTlogUrls": named}
            targets["signing_config_rekor_v2.v0.2.json"] = json.dumps(document).encode()
        publish_targets(self.folder / "repository", self.folder / "keys", targets, self.clock.now)

    def break_repository(self) -> None:
        (self.folder / "repository" / "timestamp.json").rename(self.folder / "hidden.json")

    def mend_repository(self) -> None:
        (self.folder / "hidden.json").rename(self.folder / "repository" / "timestamp.json")

    def start(self, more: str = "") -> tuple[Monitor, Daemon]:
        """Start, or start again: nothing but the folder is carried over."""
        self.running.close()
        (self.folder / "rules.yaml").write_text(RULES, encoding="utf-8")
        (self.folder / "root.json").write_bytes((self.folder / "repository" / "root.json").read_bytes())
        path = self.folder / "signwatch.yaml"
        path.write_text(CONFIG.format(url=self.url, more=more), encoding="utf-8")
        config = load_config(path)
        create(config.database, NOW, "test").close()
        self.meter = PrometheusMeter("test", config.channels)
        timing = Timing(self.clock, lambda _seconds: None)
        monitor = assemble(config, self.meter, timing)
        self.running.callback(monitor.close)
        return monitor, Daemon(monitor)

    def begin(self, more: str = "") -> tuple[Monitor, Daemon]:
        monitor, daemon = self.start(more)
        for watch in monitor.watches:
            watch.baseline(0)
        assert [outcome.detail for outcome in passes(monitor)] == [""] * len(monitor.watches), "control"
        self.clock.advance(minutes=1)
        return monitor, daemon


def trusted_root(
    logs: Sequence[ServedLog | tuple[ServedLog, datetime]], authorities: Sequence[Authority] = (CA,)
) -> bytes:
    tlogs = []
    for each in logs:
        served, end = each if isinstance(each, tuple) else (each, None)
        key = tile_log_key("127.0.0.1", spki_of(served.log.log_key))
        period = {"start": "2020-01-01T00:00:00Z"} | ({"end": end.isoformat()} if end else {})
        tlogs.append(
            {
                "baseUrl": served.url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": b64(key.spki), "validFor": period},
                "logId": {"keyId": b64(key.log_id)},
            }
        )
    chains = [
        {
            "uri": f"https://{each.name}",
            "certChain": {"certificates": [{"rawBytes": b64(der)} for der in each.chain]},
            "validFor": {"start": "2020-01-01T00:00:00Z"},
        }
        for each in authorities
    ]
    document = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "tlogs": tlogs,
        "certificateAuthorities": chains,
    }
    return json.dumps(document).encode()


def passes(monitor: Monitor) -> list[PassResult]:
    return [outcome for watch in monitor.watches for outcome in watch.run_pass()]


def told(monitor: Monitor, *kinds: str) -> list[str]:
    """Kinds of alerts so far, sorted; only these, where any are named."""
    found = [each.alert.kind for each in Reading(monitor.store.database).alerts(100)]
    return sorted(kind for kind in found if not kinds or kind in kinds)
