"""The canary: signs on a schedule, and expects the alert about its own signing within a time.

It announces a random digest first, so that its own rule expects the signing and no person gets an alert. The alert
goes through the log, the rules, the database and the outbox as every alert does, to a channel of the canary's own.
"""

import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from msgspec import Struct
from typing_extensions import override

from alerts.alert import Alert, Owner, counted, lasting, rfc3339
from alerts.channels.channel import Channel, DeliveryFailed
from alerts.delivery import idempotency_key
from alerts.inert import inert_line
from monitor.backscan.planner import Services
from monitor.config import PUBLIC_TRUST, CanaryConfig, Config
from monitor.model.errors import BadConfig, OwnFault
from monitor.raising.signing_alerts import MISSED, NOT_SIGNED, SEEN, canary_missed_alert, canary_not_signed_alert
from monitor.store import canaries as runs
from monitor.store.alert_life import AlertLife, ChangeAuthor
from monitor.store.authorisations import Authorisations
from monitor.store.canaries import Canaries, CanaryRun
from monitor.store.health import LogCondition
from rules.canary import CANARY
from rules.facts import Authorisation

_LOG: Final = logging.getLogger(__name__)
_SIGN_SECONDS: Final = 120.0
_TOKEN_SECONDS: Final = 30.0
_LONGEST_TOKEN: Final = 64 * 1024
_LONGEST_BUNDLE: Final = 256 * 1024
_SHOWN: Final = 400
_LEAVE: Final = timedelta(hours=1)
_TOKEN_VARIABLE: Final = "SIGSTORE_IDENTITY_TOKEN"  # noqa: S105  a name
_MISUSED: Final = 2


@dataclass(frozen=True, slots=True)
class CannotSign(Exception):
    """No signature was logged. `owner` is the owner of the cause: a service or this installation."""

    owner: Owner
    detail: str


class SignedCanary(Struct, frozen=True):
    """The key id (hex) of the log that took the entry, and the bundle with the log's answer."""

    log_id: str
    bundle: bytes


class CanaryChannel(Channel):
    """The outbox's channel to the canary: an alert that arrives here would have reached a person."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries

    @property
    @override
    def name(self) -> str:
        return CANARY

    @property
    @override
    def digests(self) -> bool:
        return False

    @override
    def send(self, alert: Alert, key: str, now: datetime) -> None:
        self._canaries.seen(alert.id.removeprefix(f"{SEEN}-"), now)


def check_canary(config: Config) -> None:
    """Raises `BadConfig` if the `sign` extra is missing, without which the canary cannot sign."""
    if config.canary is not None and find_spec("sigstore") is None:
        raise BadConfig(
            f"{config.path}: `canary` signs with sign-lite, which needs the `sign` extra: it is not installed here. "
            "docs/operations.md says how to install it."
        )


def sign_with_sign_lite(config: CanaryConfig, artifact: bytes) -> SignedCanary:
    """Sign `artifact` in a process of its own. Raises `CannotSign`."""
    with tempfile.TemporaryDirectory(prefix="signwatch-canary-") as folder:
        Path(folder, "canary").write_bytes(artifact)
        # Paths are absolute: the program runs in a folder of its own.
        trust = config.trust_config if config.trust_config in PUBLIC_TRUST else str(Path(config.trust_config).resolve())
        command = [sys.executable, "-m", "sign_lite", "sign", "canary", "--json", "--trust-config", trust]
        if config.rekor_version is not None:
            command += ["--rekor-version", str(config.rekor_version)]
        if config.token_file is not None:
            command += ["--identity-token-file", str(config.token_file.resolve())]
        environment = dict(os.environ)
        if config.token_command:
            environment[_TOKEN_VARIABLE] = _token_of(config.token_command)
        done = _run(command, _SIGN_SECONDS, Owner.COULD_NOT_ASK, folder, environment)
        if done.returncode != 0:
            said = inert_line(done.stderr.decode("utf-8", "replace").strip(), _SHOWN)
            raise CannotSign(Owner.OURSELVES if done.returncode == _MISUSED else Owner.COULD_NOT_ASK, said)
        try:
            told = json.loads(done.stdout)[0]
            with Path(folder, str(told["bundle"])).open("rb") as file:
                bundle = file.read(_LONGEST_BUNDLE + 1)
            signed = SignedCanary(str(told["log_id"]), bundle)
        except (ValueError, LookupError, TypeError, OSError) as error:
            raise CannotSign(Owner.OURSELVES, f"sign-lite's answer cannot be read: {error}") from error
        if len(bundle) > _LONGEST_BUNDLE:
            raise CannotSign(Owner.COULD_NOT_ASK, f"the bundle that was made has more than {_LONGEST_BUNDLE} bytes")
        return signed


def _token_of(command: Sequence[str]) -> str:
    done = _run(command, _TOKEN_SECONDS, Owner.OURSELVES)
    token = done.stdout[: _LONGEST_TOKEN + 1].decode("ascii", "replace").strip()
    if done.returncode != 0 or not token or len(token) > _LONGEST_TOKEN:
        said = inert_line(done.stderr.decode("utf-8", "replace").strip(), _SHOWN)
        raise CannotSign(Owner.OURSELVES, f"token_command {command[0]}: exit code {done.returncode}, no token: {said}")
    return token


def _run(
    command: Sequence[str],
    seconds: float,
    late: Owner,
    folder: str | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603  our own program or the operator's argument list, no shell
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotSign(late, f"{Path(command[0]).name} did not end within {counted(seconds, 'second')}") from error
    except (OSError, ValueError) as error:
        raise CannotSign(Owner.OURSELVES, f"{command[0]} cannot be run: {error}") from error


Sign = Callable[[CanaryConfig, bytes], SignedCanary]


class Canary:
    """Runs the canary. `key_id` gives the key id (hex) of the log in which it must sign, `told` are its channels."""

    def __init__(
        self,
        config: CanaryConfig,
        services: Services,
        key_id: Callable[[], str],
        told: Sequence[Channel],
        *,
        sign: Sign = sign_with_sign_lite,
    ) -> None:
        store, meter, timing = services.store, services.meter, services.timing
        self._config, self._store, self._meter, self._timing = config, store, meter, timing
        self._key_id, self._told, self._sign = key_id, told, sign
        self._life, self._leave = AlertLife(store.database, ()), Authorisations(store.database)
        self._started = self._well_at = timing.clock()
        self._told_directly = False
        self.trouble: tuple[Owner, str] | None = None
        last = store.canaries.last_seen()
        if last is not None and last.seen_at is not None:
            meter.canary_seen(last.seen_at, _seconds(last))

    def sign(self) -> None:
        """Sign if a run is due. The run is announced first, so that its rule expects this digest once."""
        now, canaries = self._timing.clock(), self._store.canaries
        newest = canaries.newest(1)
        if newest and timedelta(0) <= now - newest[0].began_at < self._config.every:
            return
        artifact = secrets.token_bytes(32)
        digest = f"sha256:{sha256(artifact).hexdigest()}"
        self._leave.add(CANARY, Authorisation(digest, 1, now + _LEAVE, "announced by the canary"), now)
        number = canaries.begin(self._config.log, digest, now)
        try:
            bundle = self._sign_in_log(artifact)
        except CannotSign as failed:
            canaries.failed(number, f"{failed.owner.value}: {failed.detail}")
            self._meter.canary_ended(runs.NOT_SIGNED)
            _LOG.warning("canary_not_signed log=%s owner=%s detail=%s", self._config.log, failed.owner, failed.detail)
        else:
            canaries.signed(number, self._timing.clock(), bundle)

    def _sign_in_log(self, artifact: bytes) -> bytes:
        wanted, signed = self._key_id(), self._sign(self._config, artifact)
        if signed.log_id != wanted:
            detail = f"the signature was logged by the log with key id {signed.log_id[:16]}…, not by {self._config.log}"
            raise CannotSign(Owner.OURSELVES, f"{detail}: set `rekor_version` or another `trust_config`")
        return signed.bundle

    def watch(self) -> None:
        """End runs that were seen or are overdue, and report overdue ones. Raises `OwnFault`.

        If the state cannot be read or written for longer than a canary may take, the report goes directly to the
        channels.
        """
        now = self._timing.clock()
        try:
            for run in self._store.canaries.unsettled():
                self._settle(run, now)
            self._tell(now)
        except OwnFault as fault:
            if now - self._well_at > self._config.within and not self._told_directly:
                self._told_directly = self._send_directly(str(fault), now)
            raise
        self._well_at, self._told_directly = now, False

    def _settle(self, run: CanaryRun, now: datetime) -> None:
        canaries, within = self._store.canaries, self._config.within
        # For a signing before the start of this process the time counts from the start.
        since = max(run.signed_at or run.began_at, self._started)
        result, detail = "", ""
        if run.seen_at is not None and (run.signed_at is not None or now - since > within):
            took = max(run.seen_at - since, timedelta(0))
            self._meter.canary_seen(run.seen_at, took.total_seconds())
            result = runs.SEEN if took <= within and run.result != runs.MISSED else runs.LATE
            if result == runs.LATE:
                detail = f"{Owner.OURSELVES.value}: the alert came {lasting(took)} after the log had taken the entry"
        elif run.signed_at is None and now - since > max(within, timedelta(seconds=2 * _SIGN_SECONDS)):
            result, detail = runs.NOT_SIGNED, f"{Owner.OURSELVES.value}: the daemon was stopped while it signed"
        elif run.result == runs.WAITING and run.signed_at is not None and now - since > within:
            owner, why = self._cause(run)
            result = runs.MISSED
            detail = f"{owner.value}: signed at {rfc3339(run.signed_at)}, and no alert within {lasting(within)}: {why}"
        if result:
            canaries.end(run.number, result, detail)
            self._meter.canary_ended(result)
            _LOG.info("canary_ended number=%d result=%s", run.number, result)

    def _cause(self, run: CanaryRun) -> tuple[Owner, str]:
        """Owner of the trouble when a signing was not seen, judged by the log's condition."""
        name, health = self._config.log, self._store.health.all()
        mine = [each for log, each in health.items() if log == name or log.startswith(f"{name}/")]
        for condition in mine:
            if condition.trouble is not None:
                return condition.trouble.owner, condition.trouble.detail
        if run.signed_at is not None and not any(_was_read(each, run.signed_at) for each in mine):
            return Owner.COULD_NOT_ASK, f"{name} showed no newer tree head since then"
        return Owner.OURSELVES, f"{name} was read since then"

    def _tell(self, now: datetime) -> None:
        """Report failed runs, once for a series; the alerts are resolved when a run is seen in time again."""
        first, newest = self._store.canaries.first_failure(), self._store.canaries.newest(2)
        ended = next((run for run in newest if run.result != runs.WAITING), None)
        if first and ended is not None:
            named, _, detail = ended.detail.partition(": ")
            owner = Owner(named) if named in list(Owner) else Owner.OURSELVES
            make = canary_not_signed_alert if ended.result == runs.NOT_SIGNED else canary_missed_alert
            self.trouble = (owner, detail)
            self._store.enqueue([make(self._config.log, first, owner, detail, now)])
        elif self.trouble is not None or ended is not None:
            self.trouble = None
            over = [alert for alert, _, _ in self._life.open_of_kinds((MISSED, NOT_SIGNED))]
            if over:
                self._life.resolve(over, ChangeAuthor("signwatch", "A canary was seen in time."), now)
        self._meter.canary_failing(failing=self.trouble is not None)

    def _send_directly(self, fault: str, now: datetime) -> bool:
        """Send the alert to the canary's channels without the database; true once one of them accepted it."""
        alert = canary_missed_alert(self._config.log, 0, Owner.OURSELVES, f"The state is not usable: {fault}", now)
        took = False
        for channel in self._told:
            with suppress(DeliveryFailed):
                channel.send(alert, idempotency_key(alert.id, channel.name), now)
                took = True
        _LOG.error("canary_told_directly delivered=%s", took)
        return took


def _was_read(condition: LogCondition, since: datetime) -> bool:
    return condition.fresh_at is not None and condition.fresh_at >= since


def _seconds(run: CanaryRun) -> float:
    return run.latency.total_seconds() if run.latency is not None else 0.0
