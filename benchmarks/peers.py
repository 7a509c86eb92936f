"""Other monitors beside `signwatch` over the same logs, ranges and identities: same finds, processor time, memory.

Their binaries are named by environment variables: `REKOR_MONITOR` and `CT_MONITOR` (github.com/sigstore/rekor-monitor,
`go build ./cmd/...`) and `CERTSPOTTER` (Debian's package). A monitor that is not named is left out. Rekor v1 and CT are
served by log-lite, Rekor v2 from memory; their time is not counted. What a command costs includes its start.
"""

import json
import os
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
from shutil import rmtree, which
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.command import Spent, program, run, write_site
from benchmarks.corpus import authority, identity_of, read_corpus
from benchmarks.tile_log import ServedLog, served
from benchmarks.watched import Watch, make_watches, rule_file
from ca_lite.tuf_repository import create_repository, publish_targets
from monitor.model.log_source import LogApi
from monitor.store.database import open_database
from monitor.store.reading import Reading
from tlog.note import tile_log_key

IDENTITIES: Final = (1, 100, 1_000)
_SIZES: Final = {LogApi.REKOR_V2: 20_480, LogApi.REKOR_V1: 2_000, LogApi.CT_RFC6962: 1_000}
# One answer of the CT log: ct-monitor asks for a range once and looks no further.
_SHORT: Final = {LogApi.REKOR_V2: "v2", LogApi.REKOR_V1: "v1", LogApi.CT_RFC6962: "ct"}
_PEER: Final = {LogApi.REKOR_V2: "REKOR_MONITOR", LogApi.REKOR_V1: "REKOR_MONITOR", LogApi.CT_RFC6962: "CT_MONITOR"}
_CERTSPOTTER: Final = "CERTSPOTTER"
_MOST: Final = 1_000
_ROUNDS: Final = {1: 3, 100: 3, 1_000: 1}
_STARTS: Final = 60.0  # seconds a server may take to start
_LOCAL: Final = "127.0.0.1"
_SINCE: Final = {"start": "2020-01-01T00:00:00Z"}


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
class PeerLogs:
    """The logs of the corpus, each at its URL, and a TUF repository that names them."""

    urls: dict[LogApi, str]
    trust: dict[str, Any]
    tuf: str
    folder: Path


def measure_peers(corpus: Path, say: Callable[[str], object]) -> dict[str, float]:
    """Ratios by name: `peer_v2_100_cpu` is rekor-monitor's processor time over that of `signwatch run --once`.

    `…_mib` is the same of peak memory, `…_scan_cpu` against `signwatch scan`; `…_s` are Signwatch's own seconds. Each
    is the median of three rounds in which the programs take turns, of one with 1,000 identities. Raises `Differ`,
    `NoPeer`.
    """
    figures: dict[str, float] = {}
    named = named_peers(os.environ)
    apis = [api for api in _SIZES if _PEER[api] in named]
    with logs_of(corpus, [*apis, *([LogApi.CT_RFC6962] if _CERTSPOTTER in named else [])], say) as logs:
        for api in apis:
            for count in IDENTITIES:
                say(f"{_SHORT[api]}: {count} identities")
                figures |= _compared(logs, api, count)
        if _CERTSPOTTER in named:
            say("certspotter")
            figures |= _beside_certspotter(logs)
    return figures


def _compared(logs: PeerLogs, api: LogApi, count: int) -> dict[str, float]:
    # rekor-monitor takes the first entry of a range for one that it has seen: the watch on entry 0 is left out.
    watches = make_watches(count + 1)[1:]
    name = f"peer_{_SHORT[api]}_{count}"
    rounds = [_round(logs, api, watches) for _ in range(_ROUNDS[count])]
    ours, scans, theirs = (list(each) for each in zip(*rounds, strict=True))
    seconds, memory = [each.seconds for each in ours], [each.mib for each in ours]
    return {
        f"{name}_s": _median(seconds),
        f"{name}_cpu": _median([a.seconds / b.seconds for a, b in zip(theirs, ours, strict=True)]),
        f"{name}_scan_cpu": _median([a.seconds / b.seconds for a, b in zip(theirs, scans, strict=True)]),
        f"{name}_mib": _median([a.mib / b for a, b in zip(theirs, memory, strict=True)]),
    }


def _round(logs: PeerLogs, api: LogApi, watches: Sequence[Watch]) -> tuple[Spent, Spent, Spent]:
    """Follow, scan, and the peer, over the whole log; all three must have found the same entries."""
    ours, scan, theirs = (_fresh(logs.folder / name) for name in ("ours", "scan", "theirs"))
    for folder in (ours, scan):
        _write_ours(folder, logs, api, watches)
    followed = run(program("signwatch", "run", "--once"), ours, memory=True)
    found = _found_by_following(ours)
    scanned = run(
        program("signwatch", "scan", "--log", "log", "--from", "0", "--to", str(_SIZES[api]), "--json"),
        scan,
        memory=True,
    )
    peer = run(_peer(logs, api, watches, theirs), theirs, memory=True)
    seen = {"signwatch run": found, "signwatch scan": _found_by_scan(scanned), _PEER[api]: _found_by_peer(theirs)}
    if found and not seen[_PEER[api]]:
        raise NoPeer(
            f"{_PEER[api]}={os.environ.get(_PEER[api])} found none of {len(found)} entries and ended with exit code "
            f"{peer.exit_code}: is it the monitor of that name? It said: {peer.output[-1000:].strip() or 'nothing'}"
        )
    if len(set(map(frozenset, seen.values()))) != 1 or not found:
        told = "; ".join(f"{name}: {len(each)} entries" for name, each in seen.items())
        raise Differ(f"{api} with {len(watches)} identities: {told}\n{peer.output[-2000:]}\n{followed.output}")
    return followed, scanned, peer


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


def _peer(logs: PeerLogs, api: LogApi, watches: Sequence[Watch], folder: Path) -> list[str]:
    """Command line of rekor-monitor or ct-monitor for the whole log, and the files that it names."""
    values = [{"certSubject": f"^(?:{each.identity})$", "issuers": [f"^{re.escape(each.issuer)}$"]} for each in watches]
    config = {
        "startIndex": 0,
        "endIndex": _SIZES[api] - 1,
        "monitoredValues": {"certIdentities": values},
        "outputIdentities": str(folder / "found.json"),
        "outputIdentitiesFormat": "json",
    }
    (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
    _publish(logs)
    flags = {
        "--config-file": "config.yaml",
        "--url": logs.urls[api],
        "--tuf-repository": logs.tuf,
        "--tuf-root-path": str(logs.folder / "tuf" / "root.json"),
        "--file": "state.txt",
    }
    # It keeps TUF metadata in the home folder.
    home = ["env", f"HOME={folder}"]
    return [*home, named_peers(os.environ)[_PEER[api]], "--once", *(word for flag in flags.items() for word in flag)]


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


def _beside_certspotter(logs: PeerLogs) -> dict[str, float]:
    """Reading the CT log: certspotter, which watches domain names and finds none, over `signwatch run --once`."""
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
    command = [named_peers(os.environ)[_CERTSPOTTER], "-stdout", *(word for flag in arguments.items() for word in flag)]
    size = _SIZES[LogApi.CT_RFC6962]

    def is_read() -> bool:
        return any(f'"size":{size}' in each.read_text().replace(" ", "") for each in folder.rglob("state.json"))

    ours = _fresh(logs.folder / "ours")
    ratios = []
    for _ in range(_ROUNDS[1]):
        rmtree(folder / "state", ignore_errors=True)
        theirs = run(command, folder, memory=True, until=is_read)
        if not is_read():
            raise NoPeer(
                f"{_CERTSPOTTER}={command[0]} did not read the log and ended with exit code {theirs.exit_code}: is it "
                f"certspotter? It said: {theirs.output[-1000:].strip() or 'nothing'}"
            )
        _write_ours(_fresh(ours), logs, LogApi.CT_RFC6962, make_watches(1))
        followed = run(program("signwatch", "run", "--once"), ours, memory=True)
        ratios.append((theirs.seconds / followed.seconds, theirs.mib / followed.mib))
    return {
        "peer_certspotter_cpu": _median([cpu for cpu, _ in ratios]),
        "peer_certspotter_mib": _median([mib for _, mib in ratios]),
    }


@contextmanager
def logs_of(corpus: Path, apis: Sequence[LogApi], say: Callable[[str], object]) -> Iterator[PeerLogs]:
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
    command = program("log-lite", "serve", "--dir", str(log), "--ct-roots", str(chain))
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
            yield PeerLogs(urls, trust, f"http://{_LOCAL}:{tuf_port}", folder)
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait(30)


def _add_certificates(url: str, say: Callable[[str], object]) -> None:
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
            say(f"making the CT log: {index} certificates")
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
