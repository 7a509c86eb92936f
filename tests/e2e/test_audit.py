"""`signwatch audit` tells an honest log, a lying log and a log that is down apart, by exit code and in JSON."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.loop import TAG, Loop, running_loop
from tests.e2e.quick_signer import QuickSigner

# However slow the machine is, an honest log is fresh for the one and a silent one is stale for the other.
PATIENT_SECONDS = 86_400
IMPATIENT_SECONDS = 1


def configure(loop: Loop, stale_seconds: int) -> None:
    config = loop.folder / "signwatch.yaml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("objectives:")]
    lines.append(f"objectives: {{stale_after_seconds: {stale_seconds}, busy: true}}")
    config.write_text("\n".join(lines) + "\n")


@contextmanager
def a_silent_log_is_stale(loop: Loop) -> Iterator[None]:
    """Inside, what was shown before the block is too old."""
    configure(loop, IMPATIENT_SECONDS)
    time.sleep(IMPATIENT_SECONDS + 1)
    try:
        yield
    finally:
        configure(loop, PATIENT_SECONDS)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with running_loop(tmp_path_factory.mktemp("audit")) as started:
        configure(started, PATIENT_SECONDS)
        yield started


@pytest.fixture
def signer(loop: Loop) -> QuickSigner:
    """A signer that the rule expects: every complaint of an audit is then the log's doing."""
    return QuickSigner.certified(loop, loop.github_token(TAG))


def grow(loop: Loop, signer: QuickSigner) -> None:
    """One new entry in each of the three logs."""
    signer.sign_v1(sha256(str(time.monotonic_ns()).encode()).digest())
    signer.sign(sha256(str(time.monotonic_ns()).encode()).digest())
    QuickSigner.certified(loop, loop.github_token(TAG))


def of_log(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [log for log in report["logs"] if log["log"].partition("/")[0] == name]
    return dict(found)


def size_of(report: dict[str, Any], name: str) -> int:
    return int(of_log(report, name)["head"]["size"])


NAMES = ("rekor-v1", "rekor-v2", "ct")


def test_an_honest_log_audits_clean_and_reports_what_it_covered(loop: Loop, signer: QuickSigner) -> None:
    first = loop.audit(expect=0)
    grow(loop, signer)
    second = loop.audit(expect=0)
    for name in NAMES:
        covered = of_log(second, name)["covered"]
        assert covered["from"] == size_of(first, name)
        assert covered["to"] == size_of(second, name) > size_of(first, name)
        assert of_log(second, name)["trouble"] is None


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("fork", "log-forked"),
        ("rewind", "log-rewound"),
        ("hide", "log-entry-missing"),
        ("swap", "log-entries-not-in-tree"),
    ],
)
def test_a_lying_log_fails_the_audit_and_the_report_names_what_it_did(
    loop: Loop, signer: QuickSigner, fault: str, kind: str
) -> None:
    """All three logs lie at once: Rekor v1, Rekor v2 and CT each have to be found out."""
    grow(loop, signer)
    loop.audit(expect=0)
    if fault in {"hide", "swap"}:
        # The newest entry is the one that is hidden or swapped: it must not have been read before.
        grow(loop, signer)
    loop.run("log-lite", "fault", "--dir", "log", fault)
    try:
        grow(loop, signer)
        # An older head proves nothing by itself, a replica may lag: it is held against the log when it stays.
        if fault == "rewind":
            with a_silent_log_is_stale(loop):
                loop.audit(expect=3)
                time.sleep(IMPATIENT_SECONDS + 1)
                report = loop.audit(expect=1)
        else:
            report = loop.audit(expect=1)
    finally:
        loop.run("log-lite", "fault", "--dir", "log", "none")
    if fault not in {"rewind", "freeze"}:
        # The logs are honest again, and what they signed against themselves stays until it is closed.
        pieces = loop.audit(expect=1)["open_evidence"]
        ids = [piece["id"] for piece in pieces]
        loop.run("signwatch", "evidence", "close", *ids, "--note", "a drill", "--config", "signwatch.yaml")
    told = {name: (of_log(report, name)["trouble"], of_log(report, name)["kind"]) for name in NAMES}
    assert told == dict.fromkeys(NAMES, ("log-misbehaved", kind))


def test_a_busy_log_that_shows_nothing_new_leaves_the_audit_unfinished_and_is_no_liar(
    loop: Loop, signer: QuickSigner
) -> None:
    grow(loop, signer)
    loop.audit(expect=0)
    loop.run("log-lite", "fault", "--dir", "log", "freeze")
    try:
        grow(loop, signer)
        with a_silent_log_is_stale(loop):
            report = loop.audit(expect=3)
    finally:
        loop.run("log-lite", "fault", "--dir", "log", "none")
    told = {name: (of_log(report, name)["trouble"], of_log(report, name)["kind"]) for name in NAMES}
    assert told == dict.fromkeys(NAMES, ("could-not-ask", "log-stale"))


def test_a_log_that_is_down_is_an_outage_and_no_accusation(loop: Loop) -> None:
    loop.stop("log-lite")
    try:
        report = loop.audit(expect=3)
        assert {log["trouble"] for log in report["logs"]} == {"could-not-ask"}
    finally:
        loop.start_log()
    assert Path(loop.folder / "signwatch.db").exists()
