"""Other monitors beside `signwatch` over the same logs, ranges and identities: same finds, processor time, memory.

Their binaries are named by environment variables: `REKOR_MONITOR` and `CT_MONITOR` (github.com/sigstore/rekor-monitor,
`go build ./cmd/...`) and `CERTSPOTTER` (Debian's package). A monitor that is not named is left out. Rekor v1 and CT are
served by log-lite, Rekor v2 from memory; their time is not counted. What a command costs includes its start.
"""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree, rmtree, which
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.command import Spent, TookTooLong, program, run, write_site
from benchmarks.corpus import authority, identity_of, read_corpus
from benchmarks.tile_log import ServedLog, served
from benchmarks.watched import Watch, make_watches, rule_file
from ca_lite.tuf_repository import create_repository, publish_targets
from monitor.model.log_source import LogApi
from monitor.store.database import open_database
from monitor.store.reading import Reading
from tlog.note import tile_log_key

IDENTITIES: Final = (1, 100, 1_000)
_SIZES: Final = {LogApi.REKOR_V2: 20_480, LogApi.REKOR_V1: 2_000, LogApi.CT_RFC6962: 2_000}
ENTRIES_READ: Final = max(_SIZES.values())
_SHORT: Final = {LogApi.REKOR_V2: "v2", LogApi.REKOR_V1: "v1", LogApi.CT_RFC6962: "ct"}
_PEER: Final = {LogApi.REKOR_V2: "REKOR_MONITOR", LogApi.REKOR_V1: "REKOR_MONITOR", LogApi.CT_RFC6962: "CT_MONITOR"}
_CERTSPOTTER: Final = "CERTSPOTTER"
_MOST: Final = 1_000
_ROUNDS: Final = 3
_LONG: Final = 20.0  # processor seconds of a program: one round of that is enough
_STARTS: Final = 60.0  # seconds a server may take to start
_LOCAL: Final = "127.0.0.1"
_SINCE: Final = {"start": "2020-01-01T00:00:00Z"}

Say = Callable[[str], object]
Round = tuple[Spent, Spent | None, Spent]  # signwatch run --once, signwatch scan, the other monitor


class Differ(RuntimeError):
    """Two monitors did not find the same entries."""


class NoPeer(RuntimeError):
    """No other monitor is named, or what is named is none."""


def named_peers(environment: Mapping[str, str]) -> dict[str, str]:
    """Absolute paths of other monitors' binaries by variable, as `environment` names them. Raises `NoPeer`."""
    named = {
        name: environment[name] for name in (*dict.fromkeys(_PEER.values()), _CERTSPOTTER) if environment.get(name)
    }
    if not named:
        raise NoPeer(
            "no other monitor is named. Set REKOR_MONITOR and CT_MONITOR to binaries that `go build ./cmd/...` makes "
            "of github.com/sigstore/rekor-monitor, or CERTSPOTTER to that of Debian's package certspotter"
        )
    found: dict[str, str] = {}
    for name, binary in named.items():
        if (path := which(binary)) is None:
            raise NoPeer(f"{name}={binary}: there is no such program, or it may not be executed")
        found[name] = str(Path(path).resolve())
    return found


@dataclass(frozen=True, slots=True)
class Comparison:
    """One other monitor over one log for a number of identities; `name` is the middle of its figures' names."""

    name: str
    peer: str
    api: LogApi
    count: int

    def is_called(self, word: str) -> bool:
        """True for its name, its log (`v1`, `v2`, `ct`) and its program (`rekor-monitor` and the like)."""
        return word in (self.name, _SHORT[self.api], _called(self.peer))


def _called(variable: str) -> str:
    return variable.lower().replace("_", "-")


# What takes the other monitors longest comes last: a run that is ended has the others.
COMPARISONS: Final = (
    *(Comparison(f"{_SHORT[api]}_1", _PEER[api], api, 1) for api in _SIZES),
    Comparison("certspotter", _CERTSPOTTER, LogApi.CT_RFC6962, 1),
    *(
        Comparison(f"{_SHORT[api]}_{count}", _PEER[api], api, count)
        for count in IDENTITIES[1:]
        for api in reversed(_SIZES)
    ),
)


def chosen_comparisons(named: Mapping[str, str], only: Sequence[str]) -> list[Comparison]:
    """Comparisons with the monitors that are named, and of these what `only` calls. Raises `NoPeer`."""
    unknown = [word for word in only if not any(each.is_called(word) for each in COMPARISONS)]
    if unknown:
        raise NoPeer(
            f"there is no comparison {', '.join(unknown)}; there are v1, v2, ct, rekor-monitor, ct-monitor, "
            + ", ".join(each.name for each in COMPARISONS)
        )
    chosen = [each for each in COMPARISONS if not only or any(map(each.is_called, only))]
    with_peer = [each for each in chosen if each.peer in named]
    if not with_peer:
        raise NoPeer(f"set {' or '.join(sorted({each.peer for each in chosen}))} to the binary to compare with")
    return with_peer


@dataclass(frozen=True, slots=True)
class PeerLogs:
    """The logs of the corpus, each at its URL, and a TUF repository that names them."""

    urls: dict[LogApi, str]
    trust: dict[str, Any]
    tuf: str
    folder: Path


def measure_peers(
    corpus: Path, comparisons: Sequence[Comparison], named: Mapping[str, str], longest: float, say: Say
) -> Iterator[dict[str, float] | RuntimeError]:
    """Figures of each comparison after each of its rounds, or why it gave none; `say` is told of each step.

    `peer_v2_100_cpu` is rekor-monitor's processor time over that of `signwatch run --once`, `…_scan_cpu` over that of
    `signwatch scan`, `…_mib` the same of peak memory. `…_s`, `…_scan_s` and `…_peer_s` are the seconds themselves,
    `…_own_mib`, `…_scan_mib` and `…_peer_mib` the memory. Each is the median of three rounds in which the programs take
    turns, of one where a program needs more than twenty seconds. `…_start_s` are the seconds of `run --once` when the
    log is followed already, `…_entry_us` what each entry costs above that. A program that runs for `longest` seconds is
    ended; when that is the other monitor, `…_cpu_at_least` is told instead of `…_cpu`.
    """
    with logs_of(corpus, list(dict.fromkeys(each.api for each in comparisons)), say) as logs:
        for number, each in enumerate(comparisons, start=1):
            place = f"{number} of {len(comparisons)}, {each.name}"
            say(f"{place}: {_SIZES[each.api]:,} entries, {each.count:,} to look for")
            try:
                yield from _compared(Runner(logs, each, named[each.peer], longest, place, say))
            except RuntimeError as error:
                yield error


@dataclass(frozen=True, slots=True)
class Runner:
    """Things that the rounds of one comparison have in common."""

    logs: PeerLogs
    comparison: Comparison
    binary: str
    longest: float
    place: str
    say: Say

    def spent(
        self, name: str, command: Sequence[str], folder: Path, until: Callable[[], bool] = lambda: False
    ) -> Spent:
        """Cost of a program. Raises `TookTooLong`."""
        self.say(f"{self.place}: {name} runs, {self.longest:.0f} s at most")
        spent = run(command, folder, memory=True, until=until, longest=self.longest)
        self.say(f"{self.place}: {name} took {spent.seconds:.2f} s of processor time and {spent.mib:.0f} MiB")
        return spent


def _compared(runner: Runner) -> Iterator[dict[str, float]]:
    comparison, logs = runner.comparison, runner.logs
    # rekor-monitor takes the first entry of a range for one that it has seen: the watch on entry 0 is left out.
    watches = make_watches(comparison.count + 1)[1:]
    _write_ours(_fresh(logs.folder / "site"), logs, comparison.api, watches)
    name = f"peer_{comparison.name}"
    rounds: list[Round] = []
    figures: dict[str, float] = {}
    for number in range(_ROUNDS):
        runner.say(f"{runner.place}: round {number + 1} of at most {_ROUNDS}")
        try:
            rounds.append(_beside_certspotter(runner) if comparison.peer == _CERTSPOTTER else _round(runner, watches))
        except PeerEnded as ended:
            runner.say(str(ended))
            figures |= {"s": ended.ours.seconds, "own_mib": ended.ours.mib, "cpu_at_least": ended.times}
        else:
            figures |= _medians(rounds)
        if number == 0:
            command = program("signwatch", "run", "--once")
            figures["start_s"] = runner.spent(
                "signwatch run --once, nothing new", command, logs.folder / "ours"
            ).seconds
        figures["entry_us"] = (figures["s"] - figures["start_s"]) / _SIZES[comparison.api] * 1e6
        yield {f"{name}_{kind}": value for kind, value in figures.items()}
        if not rounds or max(each.seconds for each in rounds[0] if each) > _LONG:
            return


def _medians(rounds: Sequence[Round]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for kind, place in (("", 0), ("scan_", 1)):
        taken = [(each[place], each[2]) for each in rounds]
        pairs = [(ours, theirs) for ours, theirs in taken if ours]
        if pairs:
            figures |= {
                f"{kind}s": _median([ours.seconds for ours, _ in pairs]),
                f"{kind or 'own_'}mib": _median([ours.mib for ours, _ in pairs]),
                f"{kind}cpu": _median([theirs.seconds / ours.seconds for ours, theirs in pairs]),
            }
    return figures | {
        "mib": _median([theirs.mib / ours.mib for ours, _, theirs in rounds]),
        "peer_s": _median([theirs.seconds for _, _, theirs in rounds]),
        "peer_mib": _median([theirs.mib for _, _, theirs in rounds]),
    }


class PeerEnded(RuntimeError):
    """The other monitor had not ended after the time it may take; `ours` is what `signwatch run --once` had used."""

    def __init__(self, place: str, ours: Spent, theirs: Spent) -> None:
        self.ours, self.times = ours, theirs.seconds / ours.seconds
        super().__init__(
            f"{place}: the other monitor was ended. It had used {theirs.seconds:.1f} s of processor time, "
            f"{self.times:.1f} times that of signwatch run; what it found is not compared"
        )


def _round(runner: Runner, watches: Sequence[Watch]) -> Round:
    """Follow, scan, and the peer, over the whole log; all three must have found the same entries."""
    logs, api, variable = runner.logs, runner.comparison.api, runner.comparison.peer
    ours, scan = _copy_of_site(logs, "ours"), _copy_of_site(logs, "scan")
    theirs = _fresh(logs.folder / "theirs")
    followed = runner.spent("signwatch run --once", program("signwatch", "run", "--once"), ours)
    found = _found_by_following(ours)
    scanned = runner.spent(
        "signwatch scan",
        program("signwatch", "scan", "--log", "log", "--from", "0", "--to", str(_SIZES[api]), "--json"),
        scan,
    )
    try:
        peer = runner.spent(_called(variable), _peer(runner, watches, theirs), theirs)
    except TookTooLong as ended:
        raise PeerEnded(runner.place, followed, ended.spent) from ended
    seen = {"signwatch run": found, "signwatch scan": _found_by_scan(scanned), variable: _found_by_peer(theirs)}
    if found and not seen[variable]:
        raise NoPeer(
            f"{variable}={runner.binary} found none of {len(found)} entries and ended with exit code "
            f"{peer.exit_code}: is it the monitor of that name? It said: {peer.output[-1000:].strip() or 'nothing'}"
        )
    if len(set(map(frozenset, seen.values()))) != 1 or not found:
        told = "; ".join(f"{name}: {len(each)} entries" for name, each in seen.items())
        raise Differ(f"{api} with {len(watches)} identities: {told}\n{peer.output[-2000:]}\n{followed.output}")
    return followed, scanned, peer


def _copy_of_site(logs: PeerLogs, name: str) -> Path:
    """The folder that `signwatch init` was run in, as it was before anything was followed."""
    rmtree(logs.folder / name, ignore_errors=True)
    return Path(copytree(logs.folder / "site", logs.folder / name))


def _write_ours(folder: Path, logs: PeerLogs, api: LogApi, watches: Sequence[Watch]) -> None:
    write_site(folder, [("log", api.value, logs.urls[api])], logs.trust, rule_file([each.rule for each in watches]))
    done = run(program("signwatch", "init"), folder)
    if done.exit_code:
        raise RuntimeError(done.output)


def _found_by_following(folder: Path) -> set[int]:
    database = open_database(str(folder / "signwatch.db"))
    try:
        return {each.index for each in Reading(database).findings(_MOST)}
    finally:
        database.close()


def _found_by_scan(scan: Spent) -> set[int]:
    lines = [json.loads(line) for line in scan.output.splitlines() if line.startswith("{")]
    return {line["index"] for line in lines if "index" in line}


def _found_by_peer(folder: Path) -> set[int]:
    """Log indexes in rekor-monitor's file of found identities, one JSON value a line."""
    told = folder / "found.json"
    if not told.exists():
        return set()
    return {int(number) for number in re.findall(r'"(?:Index|index|logIndex)":\s*(\d+)', told.read_text())}


def _peer(runner: Runner, watches: Sequence[Watch], folder: Path) -> list[str]:
    """Command line of rekor-monitor or ct-monitor for the whole log, and the files that it names."""
    logs, api = runner.logs, runner.comparison.api
    values = [{"certSubject": f"^(?:{each.identity})$", "issuers": [f"^{re.escape(each.issuer)}$"]} for each in watches]
    config = {
        "startIndex": 0,
        "endIndex": _SIZES[api] - 1,
        "monitoredValues": {"certIdentities": values},
        "outputIdentities": str(folder / "found.json"),
        "outputIdentitiesFormat": "json",
    }
    (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
    flags = {
        "--config-file": "config.yaml",
        "--url": logs.urls[api],
        "--tuf-repository": logs.tuf,
        "--tuf-root-path": str(logs.folder / "tuf" / "root.json"),
        "--file": "state.txt",
    }
    # It keeps TUF metadata in the home folder.
    home = ["env", f"HOME={folder}"]
    return [*home, runner.binary, "--once", *(word for flag in flags.items() for word in flag)]


def _publish(logs: PeerLogs) -> None:
    services = [
        {"url": logs.urls[api], "majorApiVersion": version, "validFor": _SINCE, "operator": "benchmark"}
        for api, version in ((LogApi.REKOR_V1, 1), (LogApi.REKOR_V2, 2))
    ]
    config = {
        "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
        "rekorTlogUrls": services,
        "rekorTlogConfig": {"selector": "ANY"},
        "tsaConfig": {"selector": "ANY"},
    }
    targets = {"trusted_root.json": logs.trust, "signing_config.v0.2.json": config}
    files = {name: json.dumps(document).encode() for name, document in targets.items()}
    publish_targets(logs.folder / "tuf", logs.folder / "keys", files, datetime.now(UTC))


def _beside_certspotter(runner: Runner) -> Round:
    """Reading the CT log: `signwatch run --once`, and certspotter, which watches domain names and finds none."""
    logs = runner.logs
    key = logs.trust["ctlogs"][0]
    folder = _fresh(logs.folder / "certspotter")
    log = {
        "description": "benchmark",
        "log_id": key["logId"]["keyId"],
        "key": key["publicKey"]["rawBytes"],
        "url": f"{logs.urls[LogApi.CT_RFC6962]}/",
        "mmd": 86400,
        "state": {"usable": {"timestamp": "2020-01-01T00:00:00Z"}},
    }
    listed = {"version": "1", "operators": [{"name": "benchmark", "email": [], "logs": [log]}]}
    (folder / "logs.json").write_text(json.dumps(listed), encoding="utf-8")
    (folder / "watchlist").write_text("bench.invalid\n", encoding="utf-8")
    arguments = {"-logs": "logs.json", "-watchlist": "watchlist", "-state_dir": "state"}
    command = [runner.binary, "-stdout", *(word for flag in arguments.items() for word in flag)]
    size = _SIZES[LogApi.CT_RFC6962]

    def is_read() -> bool:
        return any(f'"size":{size}' in each.read_text().replace(" ", "") for each in folder.rglob("state.json"))

    followed = runner.spent("signwatch run --once", program("signwatch", "run", "--once"), _copy_of_site(logs, "ours"))
    # It asks again for ever: it is told to end when its state says that the log is read.
    theirs = runner.spent(_called(_CERTSPOTTER), command, folder, is_read)
    if not is_read():
        raise NoPeer(
            f"{_CERTSPOTTER}={command[0]} did not read the log and ended with exit code {theirs.exit_code}: is it "
            f"certspotter? It said: {theirs.output[-1000:].strip() or 'nothing'}"
        )
    return followed, None, theirs


@contextmanager
def logs_of(corpus: Path, apis: Sequence[LogApi], say: Say) -> Iterator[PeerLogs]:
    """Serve the beginning of the corpus as logs of these protocols. They are kept in `corpus` for the next run."""
    folder = corpus / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    log, chain = folder / "log", folder / "chain.pem"
    chain.write_bytes(b"".join(map(_pem, authority().chain)))
    known = folder / "url"
    if not known.exists():
        rmtree(log, ignore_errors=True)
        port = _free_port()
        _checked("log-lite", "init", "--dir", str(log), "--url", f"http://{_LOCAL}:{port}")
        say("making the Rekor v1 log")
        bodies = read_corpus(corpus, "v1", _SIZES[LogApi.REKOR_V1])
        lines = folder / "bodies.jsonl"
        lines.write_text("".join(f'"{b64encode(body).decode()}"\n' for body in bodies), encoding="ascii")
        _checked("log-lite", "import", "--dir", str(log), "--log", "v1", str(lines))
        known.write_text(f"http://{_LOCAL}:{port}", encoding="ascii")
    url = known.read_text(encoding="ascii")
    told = subprocess.run(program("log-lite", "export-trust", "--dir", str(log)), stdout=subprocess.PIPE, check=True)
    for each in ("keys", "tuf"):
        _fresh(folder / each)
    create_repository(folder / "tuf", folder / "keys", datetime.now(UTC))
    say("starting the logs")
    # ct-monitor asks for a range once and looks no further: one answer must hold the range.
    answer = ("--ct-max-get-entries", str(_SIZES[LogApi.CT_RFC6962]))
    command = program("log-lite", "serve", "--dir", str(log), "--ct-roots", str(chain), *answer)
    tuf_port = _free_port()
    files = [sys.executable, "-m", "http.server", "--bind", _LOCAL, "--directory", str(folder / "tuf"), str(tuf_port)]
    with (folder / "served.txt").open("w") as output:
        servers = [subprocess.Popen(each, stdout=output, stderr=output) for each in (command, files)]
    try:
        _wait_for(f"{url}/api/v1/log")
        _wait_for(f"http://{_LOCAL}:{tuf_port}/root.json")
        if LogApi.CT_RFC6962 in apis:
            _add_certificates(url, say)
        with served(corpus, _SIZES[LogApi.REKOR_V2], named_by_address=True) as tiles:
            trust = _trusted_root(json.loads(told.stdout), tiles)
            urls = {LogApi.REKOR_V1: url, LogApi.REKOR_V2: tiles.url, LogApi.CT_RFC6962: f"{url}/ct"}
            logs = PeerLogs(urls, trust, f"http://{_LOCAL}:{tuf_port}", folder)
            _publish(logs)
            yield logs
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(30)


def _add_certificates(url: str, say: Say) -> None:
    """Have the CT log take the corpus's certificates, those that it lacks."""
    chain = [b64encode(each).decode() for each in authority().chain]
    with urllib.request.urlopen(f"{url}/ct/ct/v1/get-sth", timeout=60) as answer:
        size = json.load(answer)["tree_size"]
    if size > _SIZES[LogApi.CT_RFC6962]:
        raise RuntimeError(
            f"the CT log that --corpus keeps has {size} entries, {_SIZES[LogApi.CT_RFC6962]} are compared: remove its "
            "folder `peers`, it is made again"
        )
    for index in range(size, _SIZES[LogApi.CT_RFC6962]):
        if index % 100 == 0:
            say(f"making the CT log: {index} of {_SIZES[LogApi.CT_RFC6962]} certificates")
        leaf = authority().issue(identity_of(index), serial=index + 1)
        told = json.dumps({"chain": [b64encode(leaf).decode(), *chain]}).encode()
        request = urllib.request.Request(
            f"{url}/ct/ct/v1/add-chain", told, {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()


def _trusted_root(exported: dict[str, Any], tiles: ServedLog) -> dict[str, Any]:
    """The keys that log-lite tells of its Rekor v1 and CT logs, that of the tiles, and the corpus's authority."""
    key = tile_log_key(tiles.origin, tiles.spki)
    tiled = {
        "baseUrl": tiles.url,
        "hashAlgorithm": "SHA2_256",
        "publicKey": {"rawBytes": b64encode(tiles.spki).decode(), "keyDetails": "PKIX_ED25519"},
        "logId": {"keyId": b64encode(key.log_id).decode()},
    }
    listed = {
        "tlogs": [*(each for each in exported["tlogs"] if "ECDSA" in each["publicKey"]["keyDetails"]), tiled],
        "ctlogs": exported["ctlogs"],
    }
    logs: dict[str, Any] = {
        kind: [each | {"publicKey": each["publicKey"] | {"validFor": _SINCE}} for each in found]
        for kind, found in listed.items()
    }
    chain = [{"rawBytes": b64encode(each).decode()} for each in authority().chain]
    return {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        **logs,
        "certificateAuthorities": [
            {
                "subject": {"organization": "benchmark", "commonName": "benchmark"},
                "uri": "https://ca.bench.example",
                "certChain": {"certificates": chain},
                "validFor": _SINCE,
            }
        ],
    }


def _checked(*words: str) -> None:
    subprocess.run(program(*words), stdout=subprocess.DEVNULL, check=True)


def _wait_for(url: str) -> None:
    until = time.monotonic() + _STARTS
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return


def _fresh(folder: Path) -> Path:
    rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _free_port() -> int:
    with socket.create_server((_LOCAL, 0)) as listener:
        return int(listener.getsockname()[1])


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
