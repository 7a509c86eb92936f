"""The unmodified `sigstore` command signs, and the daemon notices: for Rekor v1 and for Rekor v2."""

from pathlib import Path

import pytest

from monitor.demo.processes import wait_until
from tests.e2e.loop import TAG, running_loop
from tests.support.waiting import PATIENCE


@pytest.mark.parametrize("rekor_version", [1, 2])
def test_a_stranger_signing_with_the_real_client_raises_one_alert_and_the_expected_signer_none(
    tmp_path: Path, rekor_version: int
) -> None:
    with running_loop(tmp_path) as loop:
        loop.start_monitor()
        loop.sigstore_sign("expected.txt", loop.github_token(TAG), rekor_version)
        loop.sigstore_sign("stranger.txt", loop.github_token("refs/heads/evil"), rekor_version)
        wait_until("the alert", lambda: bool(loop.alerts()), seconds=PATIENCE)
        loop.sigstore_sign("alice.txt", loop.token("--email", "alice@example.com"), rekor_version)
        wait_until("alice's alert", lambda: len(loop.alerts()) > 1, seconds=PATIENCE)
        stranger, alice = loop.alerts()
        assert stranger["rule"] == "widget-release"
        assert stranger["log"].partition("/")[0] == f"rekor-v{rekor_version}"
        assert any("refs/heads/evil" in reason for reason in stranger["reasons"])
        assert alice["rule"] == "alice"
