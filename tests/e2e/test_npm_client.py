"""npm's unmodified Sigstore clients sign with ca-lite and log-lite, verify over TUF, and are noticed by the daemon."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from monitor.demo.processes import wait_until
from tests.e2e.loop import Loop, running_loop
from tests.support.waiting import PATIENCE

CLIENT = Path(__file__).parent.parent / "npm_client"
CLI = CLIENT / "node_modules" / ".bin" / "sigstore"
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "widget.tar.gz", "digest": {"sha256": "00" * 32}}],
    "predicateType": "https://example.com/release",
    "predicate": {},
}

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not CLI.exists(),
    reason="npm's Sigstore clients are not installed: .ci/install-npm-client does it",
)


def node(loop: Loop, *command: str, token: str = "", expect: int = 0) -> str:
    """Run a client in the loop's folder as in a CI job; the client's own words when it ends as expected."""
    environment = {**os.environ, "HOME": str(loop.folder), "CI": "true", "SIGSTORE_ID_TOKEN": token}
    done = subprocess.run(
        command, cwd=loop.folder, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout


def verify(loop: Loop, bundle: str, identity: str, *options: str, expect: int = 0) -> dict[str, object]:
    """Verify as `sigstore verify` does, with the trust root from ca-lite's TUF repository."""
    trust = ["--tuf-mirror-url", f"{loop.ca_url}/tuf", "--tuf-root-path", "ca/tuf/1.root.json"]
    cache = ["--tuf-cache-path", str(loop.folder / "tuf-cache")]
    policy = ["--certificate-identity-email", identity, "--certificate-issuer", f"{loop.ca_url}/oidc"]
    out = node(loop, str(CLI), "verify", bundle, *options, *trust, *cache, *policy, "--json", expect=expect)
    answer: dict[str, object] = json.loads(out)
    return answer


def test_what_npm_signs_is_noticed_and_verifies_for_its_signer_only(tmp_path: Path) -> None:
    with running_loop(tmp_path) as loop:
        loop.start_monitor()
        (tmp_path / "statement.json").write_text(json.dumps(STATEMENT))
        (tmp_path / "widget.tar.gz").write_text("a widget\n")

        urls = ["--fulcio-url", loop.ca_url, "--rekor-url", loop.log_url]
        alice = loop.token("--email", "alice@example.com")
        node(loop, str(CLI), "attest", "statement.json", *urls, "-o", "v1.json", token=alice)
        wait_until("the alert of Rekor v1", lambda: len(loop.alerts()) > 0, seconds=PATIENCE)
        config = "ca/trust/signing_config.json"
        node(loop, "node", str(CLIENT / "sign.js"), config, "widget.tar.gz", "v2.json", token=alice)
        wait_until("the alert of Rekor v2", lambda: len(loop.alerts()) > 1, seconds=PATIENCE)

        assert [alert["rule"] for alert in loop.alerts()] == ["alice", "alice"]
        assert [alert["log"].partition("/")[0] for alert in loop.alerts()] == ["rekor-v1", "rekor-v2"]
        assert verify(loop, "v1.json", "alice@example.com") == {"verified": True}
        blob = ["--blob-file", "widget.tar.gz"]
        assert verify(loop, "v2.json", "alice@example.com", *blob) == {"verified": True}
        refused = verify(loop, "v2.json", "mallory@example.com", *blob, expect=1)
        assert "verified" not in refused, "control: another identity is refused"
