"""Following logs of a real `log-lite` process: what the tests over HTTP share."""

import base64
import json
from dataclasses import dataclass
from datetime import timedelta

from monitor.following.follower import FollowLimits, LogFollower, Timing
from monitor.model.errors import FetchFailed, LogMisbehaved
from monitor.model.log_source import LogApi, LogSource, Position
from monitor.trust.trust_root import TrustRoot, read_trust_root
from tests.support import entries as made
from tests.support.harness import NOW, EverythingIsNews, NumberScanner
from tests.support.log_server import LogServer
from tests.support.memory_state import MemoryState
from tests.support.waiting import wait_until

MEDIA_TYPE = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
PATHS = {LogApi.REKOR_V1: "", LogApi.REKOR_V2: "", LogApi.CT_RFC6962: "/ct", LogApi.CT_STATIC: "/ct"}
V1, V2, CT, STATIC = LogApi
ALL = (V1, V2, CT, STATIC)
READ = 200


@dataclass
class Followed:
    """One log of the server, and where following it stands before every attack."""

    source: LogSource
    position: Position

    def follow(self, passes: int = 3) -> tuple[str, MemoryState]:
        """Run up to three passes; returns `fine`, or the kind or reason of the last failure."""
        state = MemoryState(positions={self.position.log: self.position})
        follower = LogFollower(
            self.source,
            state,
            NumberScanner(),
            EverythingIsNews(),
            Timing(lambda: NOW, lambda _: None),
            limits=FollowLimits(batch_entries=64),
        )
        outcome = ""
        for _ in range(passes):
            try:
                report = follower.run_pass()
            except LogMisbehaved as error:
                return error.kind, state
            except FetchFailed as error:
                outcome = error.reason
            else:
                return "fine" if report.backlog == 0 else "behind", state
        return outcome, state


def trust_of(server: LogServer) -> TrustRoot:
    document = json.loads((server.folder / "trust.json").read_text())
    root = {"mediaType": MEDIA_TYPE, "tlogs": document["tlogs"], "ctlogs": document["ctlogs"]}
    return read_trust_root(json.dumps(root).encode())


def add(server: LogServer, log: str, count: int, first: int = 0) -> None:
    numbers = range(first, first + count)
    one = made.make_certificate(made.make_ca())
    if log == "ct":
        bodies = [made.x509_leaf(one, at=made.NOT_BEFORE + timedelta(seconds=n)) for n in numbers]
    else:
        # No rule of these tests selects them, so their signatures are never verified.
        bodies = [made.hashedrekord_v1(one, f"{n:064x}", signature=made.PLACEHOLDER_SIGNATURE) for n in numbers]
    file = server.folder / "bodies.jsonl"
    file.write_text("".join(json.dumps(base64.b64encode(body).decode()) + "\n" for body in bodies))
    server.command("import", "--log", log, str(file))


def wait_for(source: LogSource, size: int) -> None:
    """Wait until the running server shows what the import command wrote beside it."""
    wait_until(f"{source.identity.log} to show {size} entries", lambda: source.latest().size >= size)
