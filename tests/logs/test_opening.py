"""Opening a log: the protocol it speaks, the name it signs under and its trees are found out, never assumed."""

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from monitor.http_fetcher import Unreachable
from monitor.logs.opening import TreeSources, open_sources
from monitor.model.errors import FetchFailed, NotShown, OwnFault
from monitor.model.log_description import LogDescription
from monitor.model.log_source import LogApi
from tests.support.harness import KINDS
from tests.support.misbehaving_log import (
    CtRfc6962Log,
    CtStaticLog,
    MisbehavingLog,
    RekorV1Log,
    RekorV2Log,
    ecdsa_key,
    spki_of,
)
from tests.threats.watched import Watched
from tlog.note import tile_log_key

URLS = {
    LogApi.REKOR_V1: "https://rekor.example.org",
    LogApi.REKOR_V2: "https://log2031-1.example.org/",
    LogApi.CT_RFC6962: "https://ct.example.org/2031",
    LogApi.CT_STATIC: "https://static-ct.example.org/2031",
}
REKOR, CT = (LogApi.REKOR_V1, LogApi.REKOR_V2), (LogApi.CT_RFC6962, LogApi.CT_STATIC)


def description(log: MisbehavingLog, **more: Any) -> LogDescription:
    apis = REKOR if log.api in REKOR else CT
    return LogDescription("name", URLS[log.api], spki_of(log.log_key), **{"apis": apis, **more})


def made(kind: type[MisbehavingLog]) -> MisbehavingLog:
    log = kind()
    log.grow(10)
    return log


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)
def test_the_protocol_is_found_by_asking(kind: type[MisbehavingLog]) -> None:
    log = made(kind)
    (source,) = open_sources(description(log), log)
    assert source.identity.api is log.api
    assert source.identity.origin == log.source().identity.origin
    assert source.latest().size == 10


@pytest.mark.parametrize("kind", [RekorV2Log, CtStaticLog], ids=lambda k: k.api)
def test_a_head_with_sixteen_of_the_largest_cosignatures_is_read(kind: type[MisbehavingLog]) -> None:
    """SPEC signed-note: verifiers "MUST accept at least up to 16 signatures", each "up to nearly 5kB"."""
    log = made(kind)
    line = b"\xe2\x80\x94 " + b"w" * 255 + b" " + base64.b64encode(b"\x06" * (4 + 8 + 4627)) + b"\n"
    log.edit("checkpoint", lambda raw: raw + line * 16)
    (source,) = open_sources(description(log), log)
    assert [source.latest().size for _ in range(2)] == [10, 10], "also once it is known where the heads are"


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)
def test_a_log_under_another_key_opens_as_nothing(kind: type[MisbehavingLog]) -> None:
    log = made(kind)
    wrong = replace(description(log), spki=spki_of(ecdsa_key(1234)))
    with pytest.raises(NotShown):
        open_sources(wrong, log)[-1].latest()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.api)
def test_an_outage_is_not_taken_for_another_protocol(kind: type[MisbehavingLog]) -> None:
    log = made(kind)
    log.fail(".*", Unreachable("down"))
    with pytest.raises(FetchFailed) as caught:
        open_sources(description(log), log)
    assert caught.value.reason == "unreachable"


def test_the_key_id_in_the_trust_root_says_which_name_a_rekor_v2_log_signs_under() -> None:
    log = RekorV2Log()
    log.host = "log2031-1.example.org:8443/base"
    log.grow(3)
    key = tile_log_key(log.host, spki_of(log.log_key))
    url = "https://log2031-1.example.org:8443/base"
    opened = replace(description(log, apis=(LogApi.REKOR_V2,), log_id=key.log_id), url=url)
    (source,) = open_sources(opened, log)
    assert source.identity.origin == log.host
    assert source.latest().size == 3
    with pytest.raises(OwnFault, match="set the log's `origin`"):
        open_sources(replace(opened, log_id=sha256(b"x").digest()), log)
    (pinned,) = open_sources(replace(opened, origin=log.host), log)
    assert pinned.latest().size == 3


def test_a_rekor_v2_log_below_its_api_path_is_found() -> None:
    log = RekorV2Log(prefix="api/v2/")
    log.grow(300)
    (source,) = open_sources(description(log, apis=(LogApi.REKOR_V2,)), log)
    head = source.latest()
    assert len(source.entries(0, 300, head)) == 256
    assert source.frontier(300, head).root() == log.oracle().root(300)


def test_every_tree_of_a_rekor_v1_log_is_a_source_of_its_own() -> None:
    log = RekorV1Log(offset=500)
    log.grow(10)
    sources = open_sources(description(log), log)
    assert [s.identity.log for s in sources] == ["name/17", f"name/{log.tree_id}"]
    assert sources[1].latest().size == 10
    (pinned,) = open_sources(description(log, apis=(LogApi.REKOR_V1,), tree_id=log.tree_id), log)
    assert pinned.identity.log == "name"
    assert len(pinned.entries(3, 10, pinned.latest())) == 7


def test_trees_that_the_pinned_key_did_not_sign_are_no_sources_unless_they_are_followed() -> None:
    log = RekorV1Log(offset=500)
    log.grow(10)
    made_up = [
        {"rootHash": "00" * 32, "treeSize": 1, "signedTreeHead": "", "treeID": str(n)} for n in range(1000, 2500)
    ]

    def lie(raw: bytes) -> bytes:
        info = json.loads(raw)
        return json.dumps({**info, "inactiveShards": info["inactiveShards"] + made_up}).encode()

    log.edit("^api/v1/log$", lie)
    sources = open_sources(description(log), log)
    assert [s.identity.log for s in sources] == ["name/17", f"name/{log.tree_id}"]
    followed = open_sources(description(log, known_trees=("1001",)), log)
    assert [s.identity.log for s in followed] == ["name/17", "name/1001", f"name/{log.tree_id}"]
    assert isinstance(sources, TreeSources)
    assert sources.left_out == 1_500


def signed_trees(log: RekorV1Log, count: int) -> list[dict[str, Any]]:
    """Inactive trees that the log's own key signed."""
    active, found = log.tree_id, []
    for number in range(count):
        log.tree_id = str(5_000 + number)
        found.append(log.tree(0) | {"treeSize": 1, "signedTreeHead": log.head_note(1).decode()})
    log.tree_id = active
    return found


def test_of_a_thousand_trees_that_the_log_signed_the_newest_are_followed_and_the_rest_is_counted() -> None:
    log = RekorV1Log()
    log.grow(10)
    trees = signed_trees(log, 200)
    log.edit("^api/v1/log$", lambda raw: json.dumps(json.loads(raw) | {"inactiveShards": trees}).encode())
    sources = open_sources(description(log, known_trees=("5003",)), log)
    assert isinstance(sources, TreeSources)
    names = [source.identity.log for source in sources]
    assert names == ["name/5003", *(f"name/{5_000 + number}" for number in range(136, 200)), f"name/{log.tree_id}"]
    assert sources.left_out == 200 - 65


def test_a_made_up_list_of_trees_is_told_and_leaves_the_metrics_as_they_are(tmp_path: Path) -> None:
    log = RekorV1Log()
    log.grow(10)

    def pages(trees: list[dict[str, Any]], folder: Path) -> tuple[int, str, list[str]]:
        folder.mkdir()
        log.edit("^api/v1/log$", lambda raw: json.dumps(json.loads(raw) | {"inactiveShards": trees}).encode())
        seen = Watched(log, folder)
        seen.trees = lambda: open_sources(description(log), log)  # type: ignore[method-assign]
        seen.restart()
        seen.watch.baseline(0)
        (outcome,) = seen.watch.run_pass()
        told = [kind for kind in seen.alerts() if kind.startswith("log-")]
        seen.store.close()
        return len(seen.meter.expose().splitlines()), outcome.note, told

    honest = pages([], tmp_path / "honest")
    made_up = [
        {"rootHash": "00" * 32, "treeSize": 1, "signedTreeHead": "", "treeID": str(n)} for n in range(1000, 2500)
    ]
    lied = pages(made_up, tmp_path / "lied")
    assert lied[0] == honest[0]
    assert (honest[1:], lied[1:]) == (
        ("", []),
        ("not followed: 1,500 trees that the log names", ["log-trees-left-out"]),
    )


def test_a_rekor_v1_log_whose_origin_is_not_its_host_is_pinned_by_configuration() -> None:
    log = RekorV1Log()
    log.host = "rekor-00001-deployment"
    log.grow(4)
    with pytest.raises(NotShown):
        open_sources(description(log), log)
    opened = description(log, apis=(LogApi.REKOR_V1,), origin=f"{log.host} - {log.tree_id}", tree_id=log.tree_id)
    assert open_sources(opened, log)[0].latest().size == 4


@pytest.mark.parametrize("apis", [(LogApi.REKOR_V1,), REKOR], ids=["configured", "found out"])
def test_a_rekor_v1_log_that_signs_under_another_name_is_told_with_the_setting_for_it(apis: tuple[LogApi, ...]) -> None:
    log = RekorV1Log()
    log.host = "rekor-00001-deployment"
    log.grow(4)
    with pytest.raises(NotShown, match=f"signed it for origin '{log.host} - {log.tree_id}'.* set its `origin`"):
        open_sources(description(log, apis=apis), log)[-1].latest()
    log.sign_with(ecdsa_key(1234))
    with pytest.raises(NotShown) as caught:
        open_sources(description(log, apis=apis), log)[-1].latest()
    assert "set its" not in str(caught.value), "the name on a stranger's head is no advice"


def test_a_ct_log_without_entry_and_proof_is_started_by_hash() -> None:
    log = CtRfc6962Log()
    log.grow(40)
    log.entry_and_proof = False
    source = log.source()
    for size in (0, 1, 17, 40):
        assert source.frontier(size, source.latest()).root() == log.oracle().root(size)


def test_a_static_ct_log_may_sign_under_its_name_without_the_path() -> None:
    log = CtStaticLog()
    log.origin = "static-ct.example.org"
    log.grow(4)
    (source,) = open_sources(description(log), log)
    assert source.identity.origin == "static-ct.example.org"
