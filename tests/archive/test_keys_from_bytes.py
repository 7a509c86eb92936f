"""Search keys of logged bytes are those that docs/search-index.md gives them, as a second implementation reads it."""

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pyarrow as pa
from cryptography import x509

from monitor.archive.files import ArchiveFiles
from monitor.archive.map_building import build_maps
from monitor.archive.map_files import read_maps
from monitor.archive.ranges import ArchivedRun, ArchiveManifest, to_json
from monitor.archive.rows import MADE_SCHEMA, rows_of
from monitor.archive.search_index import SEARCHED, index_of
from monitor.archive.writing import ManifestWriter, manifest_name, write_range
from monitor.model.log_source import LogApi, LogEntry
from tests.archive import independent_map
from tests.archive.test_search_map import LOG, SMALLEST, WIDTH, small_maps
from tests.support import entries as made
from tests.support.misbehaving_log import RekorV2Log
from tlog.merkle import Frontier

CA = made.make_ca()
GITLAB = "https://gitlab.corp.example"
PEOPLE = [
    made.make_certificate(CA, san=san, key=made.make_key(san))
    for san in (
        "Dev@Example.com",
        "spiffe://trust.example/<inner@Example.com>",
        "spiffe://trust.example/" + "x" * 300,
        "Dëv!example.com",
    )
]
SEVERAL = made.make_certificate(
    CA,
    san=[
        x509.RFC822Name("one@example.com"),
        x509.DNSName("Host.example.com"),
        x509.IPAddress(ip_address("192.0.2.1")),
        x509.IPAddress(ip_address("::ffff:192.0.2.1")),
        x509.DirectoryName(x509.Name([])),
        x509.UniformResourceIdentifier("https://example.com/\x07\x1f"),
    ],
)
WORKFLOW = made.make_github_certificate(CA, "Acme/Widget")
OLD_WORKFLOW = made.make_certificate(
    CA,
    san="https://github.com/acme/widget/.github/workflows/release.yml@refs/heads/main",
    issuer=made.GITHUB_ISSUER,
    claims={"github_workflow_repository": "acme/widget"},
)
NAMELESS_WORKFLOW = made.make_certificate(
    CA, san="dev@example.com", issuer=made.GITHUB_ISSUER, claims={"github_workflow_repository": "acme/widget"}
)
SELF_MANAGED = made.make_certificate(
    CA,
    san=f"{GITLAB}/acme/widget//.gitlab-ci.yml@refs/heads/main",
    issuer=GITLAB,
    claims={
        "source_repository_uri": "https://gitlab.com/acme/widget",
        "build_config_uri": f"{GITLAB}/acme/widget//.gitlab-ci.yml@refs/heads/main",
        "build_signer_uri": f"{GITLAB}/acme/shared//signing.yml@refs/heads/main",
    },
)
CERTIFICATES = [*PEOPLE, SEVERAL, WORKFLOW, OLD_WORKFLOW, NAMELESS_WORKFLOW, SELF_MANAGED]
SPKI = made.spki_of(made.make_key("bare"))
BODIES = [
    *(make(each) for each in CERTIFICATES for make in (made.hashedrekord_v1, made.hashedrekord_v2)),
    made.hashedrekord_v1(made.pem_of(WORKFLOW) + made.pem_of(SEVERAL)),
    made.hashedrekord_v1(PEOPLE[0], "ab" * 64, algorithm="sha512"),
    made.hashedrekord_v2(PEOPLE[0], "cd" * 48, algorithm="SHA2_384"),
    made.hashedrekord_v2(SPKI),
    made.dsse_v1(WORKFLOW, *PEOPLE, envelope="1f" * 32),
    made.dsse_v1(SPKI),
    made.dsse_v2(WORKFLOW, PEOPLE[1]),
    made.intoto_v2(WORKFLOW, PEOPLE[0], envelope="2f" * 32),
    # Nothing of these can be read, or only one of two verifiers.
    made.hashedrekord_v2(PEOPLE[0], "ab" * 31),
    made.hashedrekord_v2_raw(b"not a certificate"),
    made.hashedrekord_v1(PEOPLE[0]).replace(b'"spec":', b'"spec":1,"spec":'),
    made.dsse_v1(PEOPLE[0], SPKI).replace(made.b64(made.pem_of(SPKI)).encode(), b"!"),
    b"{}",
]


def archived_keys(rows: pa.Table) -> list[set[bytes]]:
    """Searchable keys of each row, by the archive's index."""
    keys = [set[bytes]() for _ in range(len(rows))]
    for line in index_of(rows, 0).to_pylist():
        if line["key"][0] in SEARCHED:
            for entry in line["entries"]:
                keys[entry].add(line["key"])
    return keys


def rows(bodies: Sequence[bytes], first: int = 0) -> pa.Table:
    batch = rows_of([LogEntry(each) for each in bodies], first, LOG.log, LogApi.REKOR_V2, None)
    return pa.Table.from_batches([batch], MADE_SCHEMA)


def test_keys_of_every_entry_follow_from_its_bytes_by_the_text_alone() -> None:
    found = archived_keys(rows(BODIES))
    for body, keys in zip(BODIES, found, strict=True):
        assert independent_map.keys_of(body) == keys, body
    assert [len(keys) for keys in found[-5:]] == [0, 0, 0, 6, 0]
    assert (
        independent_map.key("repository", f"{GITLAB}/acme/widget")
        in found[BODIES.index(made.hashedrekord_v2(SELF_MANAGED))]
    )


def test_the_index_root_of_logged_bytes_is_that_of_the_second_implementation(tmp_path: Path) -> None:
    bodies = BODIES[: len(BODIES) // WIDTH * WIDTH]
    with small_maps():
        files = ArchiveFiles(str(tmp_path))
        ranges = [write_range(files, LOG, rows(bodies[at : at + WIDTH], at)) for at in range(0, len(bodies), WIDTH)]
        run = ArchivedRun(Frontier(0, ()), tuple(ranges), RekorV2Log(bodies).source().latest())
        files.write(manifest_name(LOG.log), to_json(ArchiveManifest(LOG, (run,))))
        build_maps(ManifestWriter(files, LOG))
        second = independent_map.maps_of_keys([independent_map.keys_of(each) for each in bodies], SMALLEST)
        assert read_maps(files, LOG.log).root_at(len(bodies)) == independent_map.index_root(second, SMALLEST)
