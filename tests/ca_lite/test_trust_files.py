"""The trust files load in sigstore's own strict models, follow the log's rotation, and come by TUF as well."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from sigstore.models import ClientTrustConfig, TrustedRoot
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from ca_lite.errors import ConfigError
from ca_lite.keys import now, read_chain, spki
from ca_lite.log_trust import parse_log_trust
from ca_lite.settings import CaSettings, Layout, checked_url, load_settings
from ca_lite.setup import initialise, write_trust
from ca_lite.tuf_repository import TARGETS_LIFETIME, TIMESTAMP_LIFETIME, refresh
from tests.ca_lite.ct_stub import CtStub
from tests.support.ca_server import CaServer

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
URL = "http://localhost:8080"


@pytest.fixture
def layout(tmp_path: Path, log_trust: Path) -> Layout:
    return initialise(tmp_path / "ca", URL, log_trust, NOW, organization="test", key_kind="p256", passphrase=None)


def test_sigstores_models_take_the_files(layout: Layout) -> None:
    config = ClientTrustConfig.from_json((layout.trust / "client_trust_config.json").read_text())
    root = TrustedRoot.from_file(str(layout.trust / "trusted_root.json"))
    chain = read_chain(layout.chains / "ca.pem")
    assert [spki(each.public_key()) for each in root.get_fulcio_certs()] == [spki(each.public_key()) for each in chain]
    assert len(root.get_timestamp_authorities()) == 1
    assert config.signing_config.get_oidc_url() == f"{URL}/oidc"
    assert len(config.signing_config.get_tsas()) == 1


def test_the_signing_config_selects_any_as_sigstore_js_demands(layout: Layout) -> None:
    config = json.loads((layout.trust / "signing_config.json").read_text())
    assert config["rekorTlogConfig"] == config["tsaConfig"] == {"selector": "ANY"}
    assert [each["majorApiVersion"] for each in config["caUrls"] + config["oidcUrls"] + config["tsaUrls"]] == [1, 1, 1]


def test_keys_stand_in_files_of_their_own_for_clients_that_take_no_larger_one(layout: Layout) -> None:
    root = json.loads((layout.trust / "trusted_root.json").read_text())
    told = load_pem_public_key((layout.trust / "ctlog.pub").read_bytes())
    assert base64.b64encode(spki(told)).decode() == root["ctlogs"][-1]["publicKey"]["rawBytes"]
    whole = json.loads((layout.trust / "signing_config.json").read_text())
    for version in {each["majorApiVersion"] for each in whole["rekorTlogUrls"]}:
        part = json.loads((layout.trust / f"signing_config.rekor-v{version}.json").read_text())
        assert {each["majorApiVersion"] for each in part["rekorTlogUrls"]} == {version}
        assert part["caUrls"] == whole["caUrls"]


def test_the_timestamp_chain_starts_with_the_signer_and_ends_self_signed(layout: Layout) -> None:
    chain = read_chain(layout.chains / "tsa.pem")
    assert len(chain) == 2
    assert chain[-1].issuer == chain[-1].subject


def test_a_retired_chain_stays_trusted_with_an_end(layout: Layout, log_trust: Path) -> None:
    ended = int(NOW.timestamp())
    (layout.chains / f"ca-retired-{ended}.pem").write_bytes((layout.chains / "ca.pem").read_bytes())
    write_trust(layout, load_settings(layout), NOW)
    authorities = json.loads((layout.trust / "trusted_root.json").read_text())["certificateAuthorities"]
    assert [each["validFor"].get("end") for each in authorities] == ["2026-11-20T12:00:00Z", None]
    TrustedRoot.from_file(str(layout.trust / "trusted_root.json"))


def test_a_rotated_ct_log_is_used_from_the_new_trust_file(layout: Layout, stub: CtStub, tmp_path: Path) -> None:
    old = stub.trust()
    ended = {
        **old["ctlogs"][0],
        "publicKey": {
            **old["ctlogs"][0]["publicKey"],
            "validFor": {"start": "2020-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
        },
    }
    new = {**old["ctlogs"][0], "baseUrl": "http://localhost:9999/ct"}
    path = tmp_path / "new.json"
    path.write_text(json.dumps({**old, "ctlogs": [ended, new]}))
    write_trust(layout, load_settings(layout), NOW, path)
    assert parse_log_trust(layout.log_trust.read_bytes(), "x").ct_log().url == "http://localhost:9999/ct"
    assert len(json.loads((layout.trust / "trusted_root.json").read_text())["ctlogs"]) == 2


def changed(trust: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**trust, "ctlogs": [{**trust["ctlogs"][0], **fields}]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda trust: [], "not the output of"),
        (lambda trust: {"tlogs": []}, "not the output of"),
        (lambda trust: {**trust, "ctlogs": []}, "no CT log"),
        (lambda trust: changed(trust, baseUrl="ftp://x"), "not an http URL"),
        (lambda trust: changed(trust, publicKey={"rawBytes": "%"}), "not the output of"),
        (
            lambda trust: changed(
                trust, publicKey={"rawBytes": "MCowBQYDK2VwAyEArHLGni760e2S6qIEV+FG8Vxeqk9AF6B+7b2wNte1MuE="}
            ),
            "not ECDSA P-256",
        ),
    ],
)
def test_a_log_trust_file_is_checked(change: Callable[[Any], Any], says: str, stub: CtStub) -> None:
    assert parse_log_trust(json.dumps(stub.trust()).encode(), "log.json").ct_log().url == f"{stub.url}/ct"
    with pytest.raises(ConfigError, match=says):
        parse_log_trust(json.dumps(change(stub.trust())).encode(), "log.json")


class FolderFetcher(FetcherInterface):
    """Gives the TUF client files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _fetch(self, url: str) -> Any:
        path = self.folder / url.removeprefix("http://tuf/")
        if not path.exists():
            raise DownloadHTTPError("missing", 404)
        return iter([path.read_bytes()])


def updater(layout: Layout, cache: Path) -> Updater:
    cache.mkdir(exist_ok=True)
    (cache / "targets").mkdir(exist_ok=True)
    return Updater(
        str(cache),
        "http://tuf/",
        target_dir=str(cache / "targets"),
        target_base_url="http://tuf/targets/",
        fetcher=FolderFetcher(layout.tuf),
        bootstrap=(layout.tuf / "root.json").read_bytes(),
    )


@pytest.fixture
def fresh(tmp_path: Path, log_trust: Path) -> Layout:
    return initialise(tmp_path / "ca", URL, log_trust, now(), organization="test", key_kind="p256", passphrase=None)


def test_a_tuf_client_gets_both_files_and_follows_a_release(fresh: Layout, tmp_path: Path) -> None:
    client = updater(fresh, tmp_path / "cache")
    client.refresh()
    for target, file in (
        ("trusted_root.json", "trusted_root.json"),
        ("signing_config.v0.2.json", "signing_config.json"),
    ):
        info = client.get_targetinfo(target)
        assert info is not None
        assert Path(client.download_target(info)).read_bytes() == (fresh.trust / file).read_bytes()
    write_trust(fresh, load_settings(fresh), now())
    again = updater(fresh, tmp_path / "cache")
    again.refresh()
    assert json.loads((fresh.tuf / "timestamp.json").read_text())["signed"]["version"] == 2


def test_metadata_is_signed_again_before_it_ends(fresh: Layout) -> None:
    made = now()
    assert not refresh(fresh.tuf, fresh.tuf_keys, made + TIMESTAMP_LIFETIME / 4)
    assert refresh(fresh.tuf, fresh.tuf_keys, made + TIMESTAMP_LIFETIME * 0.6)
    assert json.loads((fresh.tuf / "timestamp.json").read_text())["signed"]["version"] == 2
    assert not (fresh.tuf / "2.targets.json").exists()
    assert refresh(fresh.tuf, fresh.tuf_keys, made + TARGETS_LIFETIME * 0.8)
    assert (fresh.tuf / "2.targets.json").exists()
    assert json.loads((fresh.tuf / "timestamp.json").read_text())["signed"]["version"] == 3


def test_the_server_serves_the_repository_and_nothing_beside_it(ca: CaServer, http: httpx.Client) -> None:
    assert http.get("/tuf/root.json").content == (ca.folder / "tuf" / "root.json").read_bytes()
    assert http.get("/tuf/1.root.json").status_code == http.get("/tuf/timestamp.json").status_code == 200
    target = next((ca.folder / "tuf" / "targets").iterdir()).name
    assert http.get(f"/tuf/targets/{target}").status_code == 200
    for path in (
        "2.root.json",
        "../ca.yaml",
        "..%2fca.yaml",
        "targets",
        "%2e%2e/private/ca.pem",
        "",
    ):
        assert http.get(f"/tuf/{path}").status_code == 404, path


@pytest.mark.parametrize("url", ["http://localhost:8080", "https://ca.example.com", "http://[::1]:80"])
def test_an_origin_is_a_good_url(url: str) -> None:
    assert checked_url(url) == url
    assert CaSettings(version=1, url=url, organization="x").host


@pytest.mark.parametrize(
    "url", ["", "localhost", "ftp://x", "http://x/", "http://x/path", "http://u@x", "http://x:0", "http://x?q"]
)
def test_anything_but_an_origin_is_refused(url: str) -> None:
    """sigstore-python drops the path of the CA's URL, so a URL with one would not be ours."""
    with pytest.raises(ValueError, match="must"):
        checked_url(url)


def test_dates_are_in_the_past_for_clients_that_drop_later_keys(layout: Layout) -> None:
    root = json.loads((layout.trust / "trusted_root.json").read_text())
    start = datetime.fromisoformat(root["certificateAuthorities"][0]["validFor"]["start"])
    assert NOW - timedelta(hours=1) < start < NOW
