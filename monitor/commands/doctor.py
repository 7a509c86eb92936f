"""`signwatch doctor`: checks of this installation, this machine and this configuration."""

import hashlib
import importlib.metadata
import resource
import shutil
import sqlite3
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

from alerts.alert import counted, rfc3339
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, JsonOption, leave, say, say_json
from monitor.config import Config, load_config
from monitor.daemon.alerting import build_channels
from monitor.daemon.configured_log import as_followed
from monitor.daemon.followed_logs import configured_logs, not_followed
from monitor.daemon.trust_watch import trust_of
from monitor.judging.active_rules import RuleKeeper, route_of
from monitor.model.errors import OwnFault, SignwatchError
from monitor.program import VERSION, utc_now
from monitor.store.database import open_database, sqlite_path
from monitor.store.health import RuleLoad
from monitor.store.store import Store

TOP_LEVEL: Final = (
    "addresses",
    "alerts",
    "ca_lite",
    "command_line",
    "inbound",
    "log_lite",
    "monitor",
    "outbound",
    "rules",
    "settings",
    "sign_lite",
    "sigstore_entries",
    "tlog",
)
_LEAST_FREE: Final = 1024**3
_LEAST_DESCRIPTORS: Final = 512
_LEAST_SQLITE: Final = (3, 35, 0)
_NAMED: Final = 5
_HASHED: Final = 32 * 1024 * 1024
# SHA-NI hashes at well above 1 GB/s, plain code at about a third of a GB/s.
_SLOW: Final = 0.6e9
# No signed checkpoint is younger than this program: an earlier clock is wrong.
_RELEASED: Final = datetime(2026, 1, 1, tzinfo=UTC)


class DoctorCheck(Struct, frozen=True):
    """One check. `fine` is `None` for a remark that is no failure."""

    what: str
    fine: bool | None
    told: str


def doctor(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """Check versions, packages, clock, disk, hashing speed, configuration, keys, rules, channels and database.

    Sends no request to a log. Exits 3 when a fault would keep the daemon from doing its work.

    Examples:
      signwatch doctor
    """
    checks = [*_program(), *_machine(config.parent), *_configured(config)]
    if as_json:
        say_json({"checks": [{"what": c.what, "fine": c.fine, "told": c.told} for c in checks]})
    else:
        words = {True: ("ok", "green"), False: ("BAD", "bold red"), None: ("note", "yellow")}
        for check in checks:
            word, style = words[check.fine]
            say(f"{word:<5} {check.what}: {' '.join(check.told.splitlines())}", style)
    raise leave(Exit.UNFINISHED if any(check.fine is False for check in checks) else Exit.FINE)


def _program() -> Iterator[DoctorCheck]:
    yield DoctorCheck("version", True, f"signwatch {VERSION}, Python {sys.version.split()[0]}, {ssl.OPENSSL_VERSION}")
    has_upsert = sqlite3.sqlite_version_info >= _LEAST_SQLITE
    yield DoctorCheck("SQLite", has_upsert, sqlite3.sqlite_version)
    owners = importlib.metadata.packages_distributions()
    for name in TOP_LEVEL:
        # The names are generic: a package of the same name could be imported in place of ours, or ours in its place.
        others = sorted(set(owners.get(name, ())) - {"signwatch"})
        if others:
            yield DoctorCheck(
                "packages", False, f"{name} also belongs to {', '.join(others)}: use an environment of its own"
            )
            return
    yield DoctorCheck("packages", True, "no other distribution owns one of our names")


def _machine(folder: Path) -> Iterator[DoctorCheck]:
    now = utc_now()
    yield DoctorCheck("clock", now > _RELEASED, rfc3339(now))
    there = folder if folder.exists() else Path()
    free = shutil.disk_usage(there).free
    yield DoctorCheck("disk", True if free > _LEAST_FREE else None, f"{free // 2**20} MiB free at {there.resolve()}")
    writable = _is_writable(there)
    yield DoctorCheck("folder", writable, f"{there.resolve()} is {'' if writable else 'NOT '}writable")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limited = "no limit" if soft == resource.RLIM_INFINITY else f"{soft} at once"
    yield DoctorCheck("file descriptors", True if soft >= _LEAST_DESCRIPTORS or soft < 0 else None, limited)
    began = time.perf_counter()
    hashlib.sha256(bytes(_HASHED)).digest()
    speed = _HASHED / (time.perf_counter() - began)
    remark = "" if speed > _SLOW else ": no SHA instructions in use, hashing will be the bottleneck of long scans"
    yield DoctorCheck("SHA-256", True if speed > _SLOW else None, f"{speed / 1e6:.0f} MB/s{remark}")


def _configured(path: Path) -> Iterator[DoctorCheck]:
    try:
        config = load_config(path)
    except SignwatchError as error:
        yield DoctorCheck("configuration", False, str(error))
        return
    yield DoctorCheck("configuration", True, str(path))
    parts: list[tuple[str, Callable[[Config], str]]] = [
        ("channels", _channels),
        ("rules", _rules),
        ("trust root", _trust),
        ("database", _database),
    ]
    for what, look in parts:
        try:
            yield DoctorCheck(what, True, look(config))
        except SignwatchError as error:
            yield DoctorCheck(what, False, str(error))


def _channels(config: Config) -> str:
    names = ", ".join(channel.name for channel in build_channels(config)) or "none"
    return f"{names}; notified by default: {', '.join(config.notify) or 'NONE, so `signwatch run` refuses to start'}"


def _rules(config: Config) -> str:
    held = RuleKeeper(config.rules, config.channels).held
    names = held.unindexed
    named = f": {', '.join(names[:_NAMED])}{', …' if len(names) > _NAMED else ''}" if names else ""
    return f"{len(held.rules.rules)} in {config.rules}, {len(names)} of them asked about every entry{named}"


def _trust(config: Config) -> str:
    with ExitStack() as parts:
        store = None
        # A fault of the database has a check of its own.
        with suppress(OwnFault):
            database = open_database(config.database)
            parts.callback(database.close)
            store = Store(database, clock=utc_now, route=route_of(config, None))
        trust = trust_of(config.trust, utc_now, store)
        root, logs = trust.kept().root, configured_logs(config, trust)
        for log in logs:
            as_followed(log, trust, store)
    if unusable := not_followed(config, root):
        raise OwnFault("; ".join(unusable))
    skipped = f"; useless, and not among `logs`: {'; '.join(root.skipped)}" if root.skipped else ""
    authorities = counted(len(root.authorities), "certificate authority")
    return f"{counted(len(logs), 'log')}, each with its key; {authorities}{skipped}"


def _database(config: Config) -> str:
    with closing(open_database(config.database, check=True)) as database:
        path = sqlite_path(config.database)
        size = f", {path.stat().st_size // 1024} KiB" if path is not None else ""
        dropped = sum(each.matches for each in RuleLoad(database).dropped().values())
        left_out = f"; {counted(dropped, 'match')} left out, see docs/alerts/rules-dropped.md" if dropped else ""
        return f"{database.where}{size}, schema current{left_out}"


def _is_writable(folder: Path) -> bool:
    """True if a file can be made in `folder`."""
    probe = folder / ".signwatch-probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
