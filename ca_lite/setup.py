"""`ca-lite init` and `ca-lite trust`: make the directory, and write the trust files whenever the log changes."""

import base64
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from ca_lite.chains import IssuedCertificate, make_intermediate, make_root, make_timestamp_leaf
from ca_lite.errors import ConfigError
from ca_lite.journal import Journal
from ca_lite.keys import (
    SigningKey,
    chain_pem,
    generate,
    read_chain,
    read_limited,
    replace_file,
    write_private_key,
)
from ca_lite.log_trust import LogTrust, parse_log_trust
from ca_lite.oidc_keys import rotate_oidc_keys
from ca_lite.presets import GITHUB
from ca_lite.settings import CLIENT_ID, MAX_ORGANIZATION, CaSettings, Layout, checked_url, own_issuers
from ca_lite.trust_files import ValidChain, client_trust_config, signing_config, trusted_root
from ca_lite.tuf_repository import create_repository, publish_targets

_RFC3339: Final = "%Y-%m-%dT%H:%M:%SZ"


def initialise(
    directory: Path,
    url: str,
    log_trust: Path,
    now: datetime,
    *,
    organization: str,
    key_kind: str,
    passphrase: bytes | None,
    development_login: bool = False,
) -> Layout:
    """Make keys, chains, configuration and trust files in an empty or missing directory. Raises `ConfigError`."""
    layout = Layout(directory)
    try:
        settings = CaSettings(1, checked_url(url), organization, development_login=development_login)
    except ValueError as error:
        raise ConfigError(f"--url: {error}") from error
    if not 1 <= len(organization) <= MAX_ORGANIZATION or not organization.isprintable():
        raise ConfigError(f"--organization: a line of text, at most {MAX_ORGANIZATION} characters")
    raw_trust = read_limited(log_trust)
    parse_log_trust(raw_trust, str(log_trust))
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory}: not empty; a CA is made once. Use `ca-lite trust` to refresh its trust files")
    root_key = generate(key_kind)
    layout.private.mkdir(parents=True, mode=0o700)
    _make_chains(layout, organization, root_key, key_kind, passphrase=passphrase, now=now)
    rotate_oidc_keys(layout.oidc)
    create_repository(layout.tuf, layout.tuf_keys, now)
    replace_file(layout.issuers, _issuers_yaml(url).encode())
    Journal.create(layout.journal).close()
    replace_file(layout.log_trust, raw_trust)
    # Written last: the other commands report a directory without ca.yaml as unfinished.
    replace_file(layout.settings, _settings_yaml(settings).encode())
    write_trust(layout, settings, now)
    return layout


def write_trust(layout: Layout, settings: CaSettings, now: datetime, new_log_trust: Path | None = None) -> None:
    """Write the trust files.

    `new_log_trust` is the log's trust file after a rotation of the log. Raises `ConfigError`.
    """
    if new_log_trust is not None:
        raw = read_limited(new_log_trust)
        parse_log_trust(raw, str(new_log_trust))
        replace_file(layout.log_trust, raw)
    log = load_log_trust(layout)
    authorities, timestamping = (valid_chains(layout, name) for name in ("ca", "tsa"))
    root = trusted_root(settings, authorities, timestamping, log)
    config = signing_config(settings, authorities[-1].start, log)
    files = {
        "trusted_root.json": _json(root),
        "signing_config.json": _json(config),
        "client_trust_config.json": _json(client_trust_config(root, config)),
        "ca-chain.pem": "".join(chain_pem(each.chain) for each in authorities).encode(),
        "tsa-chain.pem": "".join(chain_pem(each.chain) for each in timestamping).encode(),
    }
    files |= _separate_files(log, config)
    for name, content in files.items():
        replace_file(layout.trust / name, content)
    targets = {
        "trusted_root.json": files["trusted_root.json"],
        "signing_config.v0.2.json": files["signing_config.json"],
    }
    publish_targets(layout.tuf, layout.tuf_keys, targets, now)


def _separate_files(log: LogTrust, config: Mapping[str, Any]) -> dict[str, bytes]:
    """Keys in PEM and signing configurations of one log API, for clients that cannot read a trusted root.

    gitsign and cosign's environment variables need one key file each. A client of Rekor v1 needs a configuration that
    names no other log.
    """
    keys = {"ctlog.pub": log.ctlogs, "rekor-v1.pub": [], "rekor-v2.pub": []}
    for each in log.tlogs:
        # SPEC protobuf-specs: the id of a Rekor v1 log is the SHA-256 of its key, that of a v2 log is a note key id.
        spki = base64.b64decode(each["publicKey"]["rawBytes"])
        is_v1 = base64.b64decode(each["logId"]["keyId"]) == hashlib.sha256(spki).digest()
        keys["rekor-v1.pub" if is_v1 else "rekor-v2.pub"].append(each)
    files = {}
    for name, logs in keys.items():
        in_use = [each for each in logs if not (each["publicKey"].get("validFor") or {}).get("end")]
        if in_use:
            files[name] = _pem(base64.b64decode(in_use[-1]["publicKey"]["rawBytes"]))
    for version in (1, 2):
        urls = [each for each in config["rekorTlogUrls"] if each["majorApiVersion"] == version]
        if urls:
            files[f"signing_config.rekor-v{version}.json"] = _json({**config, "rekorTlogUrls": urls})
    return files


def _pem(spki: bytes) -> bytes:
    return load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_log_trust(layout: Layout) -> LogTrust:
    """Trust file of the log as stored. Raises `ConfigError`."""
    return parse_log_trust(read_limited(layout.log_trust), str(layout.log_trust))


def valid_chains(layout: Layout, name: str) -> list[ValidChain]:
    """Chains of `ca` or `tsa`, retired ones first: `chains/<name>.pem` and `chains/<name>-retired-*.pem`."""
    retired = sorted(layout.chains.glob(f"{name}-retired-*.pem"))
    chains = [_valid(read_chain(path), _end_of(path)) for path in retired]
    return [*chains, _valid(read_chain(layout.chains / f"{name}.pem"), None)]


def _end_of(path: Path) -> str:
    return datetime.fromtimestamp(int(path.stem.rsplit("-", 1)[1]), UTC).strftime(_RFC3339)


def _valid(chain: tuple[x509.Certificate, ...], end: str | None) -> ValidChain:
    return ValidChain(chain, chain[0].not_valid_before_utc.strftime(_RFC3339), end)


def _make_chains(
    layout: Layout, organization: str, root_key: SigningKey, kind: str, *, passphrase: bytes | None, now: datetime
) -> None:
    root = make_root(organization, f"{organization} root", root_key, now)
    issuer = make_intermediate(root, organization, f"{organization} intermediate", generate(kind), now)
    tsa_root = make_root(organization, f"{organization} timestamp root", generate("p384"), now)
    tsa = make_timestamp_leaf(tsa_root, organization, f"{organization} timestamps", generate("p256"), now)
    named: dict[str, IssuedCertificate] = {"ca-root": root, "ca": issuer, "tsa-root": tsa_root, "tsa": tsa}
    for name, issued in named.items():
        write_private_key(layout.private / f"{name}.pem", issued.key, passphrase)
    replace_file(layout.chains / "ca.pem", chain_pem((issuer.certificate, root.certificate)).encode())
    replace_file(layout.chains / "tsa.pem", chain_pem((tsa.certificate, tsa_root.certificate)).encode())


_SETTINGS_TAIL: Final = """\
# Defaults; remove the # to change one, then restart the server.
# certificate_lifetime_seconds: 600     # at most ten minutes
# client_signing_algorithms: [ecdsa-sha2-256-nistp256]   # default: every one Fulcio permits
# timestamp_policy: 1.3.6.1.4.1.57264.2
# rate_limit: {per_minute: 120, burst: 60}    # certificates per identity
# ct_timeout_seconds: 4
# cors_origins: ["*"]
# bind: 0.0.0.0                         # needed when the url is not this machine
# login_issuer: https://dex.example.com/dex   # where clients sign in: `ca-lite connect` sets it
# development_login: true               # any address with one secret, for development and drills only
"""


def _settings_yaml(settings: CaSettings) -> str:
    values: dict[str, Any] = {"version": 1, "url": settings.url, "organization": settings.organization}
    if settings.development_login:
        values["development_login"] = True
    return yaml.safe_dump(values, sort_keys=False) + _SETTINGS_TAIL


def _issuers_yaml(url: str) -> str:
    """Fulcio's issuer configuration with the three issuers this process serves."""
    own = own_issuers(url)
    origin = url.rsplit(":", 1)[0] if url.count(":") > 1 else url
    issuers: dict[str, Any] = {
        own["email"]: {"issuer-url": own["email"], "client-id": CLIENT_ID, "type": "email"},
        own["github"]: {
            "issuer-url": own["github"],
            "client-id": CLIENT_ID,
            "type": "ci-provider",
            "ci-provider": GITHUB,
        },
        own["uri"]: {"issuer-url": own["uri"], "client-id": CLIENT_ID, "type": "uri", "subject-domain": origin},
    }
    head = "# OIDC issuers this CA believes, in Fulcio's format. Changes are picked up while the server runs.\n"
    return head + yaml.safe_dump({"oidc-issuers": issuers}, sort_keys=False)


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
