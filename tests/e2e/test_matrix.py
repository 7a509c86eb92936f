"""The matrix: each client signs in each way, it and another one verify, and the daemon saw it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest

from addresses.image_name import ImageName
from monitor.demo.processes import program, wait_until
from tests.e2e.loop import Loop, running_loop
from tests.e2e.matrix import PAGE, Cell, cells, page
from tests.support.go_clients import COSIGN, REGISTRY, registry_server
from tests.support.images import push_image
from tests.support.waiting import PATIENCE

NPM = Path(__file__).parent.parent / "npm_client"
NPM_CLI = NPM / "node_modules" / ".bin" / "sigstore"
KIND = "https://slsa.dev/provenance/v1"
PREDICATE = {
    "buildDefinition": {"buildType": "https://example.com/build/v1", "externalParameters": {}},
    "runDetails": {"builder": {"id": "https://example.com/builder"}},
}
RULES = """\
version: 1
rules:
  - id: matrix
    select: {identity: {glob: "*@matrix.example"}}
"""
MISSING = {
    "cosign": None if COSIGN else "cosign is not built: run .ci/install-go-clients",
    "npm": None if shutil.which("node") and NPM_CLI.exists() else "npm's clients: run .ci/install-npm-client",
}


@dataclass
class World:
    """One deployment with a daemon, a registry, and clients that have trust in it over TUF as well."""

    loop: Loop
    registry: str
    trusted: set[str] = field(default_factory=set)

    def path(self, name: str) -> str:
        return str(self.loop.folder / name)

    def trust(self, name: str) -> str:
        return self.path(f"ca/trust/{name}")

    @property
    def tuf(self) -> str:
        return f"{self.loop.ca_url}/tuf"

    def call(self, command: Sequence[str], *, token: str = "", fails: bool = False) -> str:
        """Run a client at home in the deployment's folder; what it said."""
        home = str(self.loop.folder)
        known = {"PATH": os.environ["PATH"], "HOME": home, "CI": "true", "NO_COLOR": "1", "COLUMNS": "200"}
        done = subprocess.run(
            command,
            cwd=home,
            env={**known, "SIGSTORE_ID_TOKEN": token},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, f"{command} ended with {done.returncode}:\n{said}"
        return said

    def start_over_tuf(self, client: str) -> None:
        """Have a client trust the TUF repository, once."""
        root = self.path("ca/tuf/1.root.json")
        begin = {
            "cosign": [COSIGN or "", "initialize", "--mirror", self.tuf, "--root", root],
            "sign-lite": [program("sign-lite"), "initialize", "--mirror", self.tuf, "--root", root],
            "PyPI": [sys.executable, "-m", "sigstore", "--instance", self.tuf, "trust-instance", root],
        }
        if client in begin and client not in self.trusted:
            self.call(begin[client])
        self.trusted.add(client)


@dataclass
class Signed:
    """What a cell signed: a file with a bundle, or an image; and a second one that it did not sign."""

    file: str
    other: str
    bundle: str
    image: ImageName
    other_image: ImageName


def sign(world: World, cell: Cell, made: Signed) -> str:
    """Sign as the cell says."""
    token = world.loop.token("--email", cell.signer)
    config = world.trust(f"signing_config.rekor-v{cell.rekor}.json")
    predicate = ("--predicate", world.path("predicate.json"))
    image, file, to = str(made.image), made.file, ("--bundle", made.bundle)
    if cell.client == "cosign":
        root = () if cell.trust == "TUF" else ("--trusted-root", world.trust("trusted_root.json"))
        given = ("--signing-config", config, *root, "--yes", "--identity-token", token)
        work = {
            "sign": ["sign-blob", *given, *to, file],
            "attest": ["attest-blob", *given, *predicate, "--type", KIND, *to, file],
            "image": ["sign", *given, image],
        }
        return world.call([COSIGN or "", *work[cell.what]])
    if cell.client == "npm":
        if (cell.what, cell.rekor) == ("attest", 1):
            urls = ("--fulcio-url", world.loop.ca_url, "--rekor-url", world.loop.log_url)
            command = [str(NPM_CLI), "attest", file + ".statement", *urls, "-o", made.bundle]
        else:
            statement = [file + ".statement"] if cell.what == "attest" else []
            command = ["node", str(NPM / "sign.js"), config, file, made.bundle, *statement]
        return world.call(command, token=token)
    given = ("--rekor-version", str(cell.rekor), "--identity-token", token)
    if cell.client == "PyPI":
        source = ("--instance", world.tuf) if cell.trust == "TUF" else ("--trust-config", world.trust(CONFIG))
        kind = (*predicate, "--predicate-type", KIND) if cell.what == "attest" else ()
        return world.call([*PYPI, *source, cell.what, *kind, *given, *to, file])
    source = ("--trust-config", world.tuf if cell.trust == "TUF" else world.trust(CONFIG))
    work = {
        "sign": ["sign", file, *to],
        "attest": ["attest", file, *to, *predicate, "--predicate-type", KIND],
        "image": ["image", "sign", image],
    }
    return world.call([program("sign-lite"), *work[cell.what], *source, *given])


CONFIG = "client_trust_config.json"
PYPI = (sys.executable, "-m", "sigstore")


def verify(
    world: World, cell: Cell, made: Signed, *, by: str, who: str, other: bool = False, fails: bool = False
) -> str:
    """Verify what the cell signed with the client `by`: of the wanted signer `who`, or of something `other`."""
    issuer = f"{world.loop.ca_url}/oidc"
    file, image = (made.other, str(made.other_image)) if other else (made.file, str(made.image))
    over_tuf = cell.trust == "TUF"
    if by == "cosign":
        root = () if over_tuf else ("--trusted-root", world.trust("trusted_root.json"))
        given = (*root, "--certificate-identity", who, "--certificate-oidc-issuer", issuer)
        work = {
            "sign": ["verify-blob", *given, "--bundle", made.bundle, file],
            "attest": ["verify-blob-attestation", *given, "--type", KIND, "--bundle", made.bundle, file],
            "image": ["verify", *given, image],
        }
        return world.call([COSIGN or "", *work[cell.what]], fails=fails)
    if by == "npm":
        blob = [file] if cell.what == "sign" else []
        if over_tuf:
            trust = ("--tuf-mirror-url", world.tuf, "--tuf-root-path", world.path("ca/tuf/1.root.json"))
            policy = ("--certificate-identity-email", who, "--certificate-issuer", issuer)
            named = ["--blob-file", *blob] if blob else []
            cache = ("--tuf-cache-path", world.path("npm-tuf"))
            return world.call([str(NPM_CLI), "verify", made.bundle, *named, *trust, *cache, *policy], fails=fails)
        root_file = world.trust("trusted_root.json")
        return world.call(["node", str(NPM / "verify.js"), root_file, made.bundle, who, issuer, *blob], fails=fails)
    if by == "PyPI":
        source = ("--instance", world.tuf) if over_tuf else ("--trust-config", world.trust(CONFIG))
        wanted = ("--cert-identity", who, "--cert-oidc-issuer", issuer, "--bundle", made.bundle)
        return world.call([*PYPI, *source, "verify", "identity", *wanted, file], fails=fails)
    source = ("--trust-config", world.tuf if over_tuf else world.trust(CONFIG))
    words = ["image", "verify", image] if cell.what == "image" else ["verify", file, "--bundle", made.bundle]
    return world.call([program("sign-lite"), *words, *source, "--identity", who, "--issuer", issuer], fails=fails)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if REGISTRY is None:
        pytest.skip("the registry is not built: run .ci/install-go-clients")
    folder = tmp_path_factory.mktemp("matrix")
    with running_loop(folder) as loop, registry_server() as registry:
        (folder / "rules.yaml").write_text(RULES)
        (folder / "predicate.json").write_text(json.dumps(PREDICATE))
        loop.start_monitor()
        yield World(loop, registry)


def prepared(world: World, cell: Cell) -> Signed:
    """Something to sign for the cell, and something else."""
    for client in {cell.client, cell.peer} if cell.trust == "TUF" else ():
        world.start_over_tuf(client)
    name = str(cell).lower()
    file, other = (world.loop.folder / each for each in (name, f"{name}.other"))
    for each in (file, other):
        each.write_text(each.name * 9)
    subject = {"name": name, "digest": {"sha256": sha256(file.read_bytes()).hexdigest()}}
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [subject],
        "predicateType": KIND,
        "predicate": PREDICATE,
    }
    Path(f"{file}.statement").write_text(json.dumps(statement))
    images = [push_image(world.registry, each, each.encode()) for each in (name, f"{name}-other")]
    return Signed(str(file), str(other), f"{file}.bundle.json", *images)


@pytest.mark.parametrize("cell", list(cells()), ids=str)
def test_what_a_client_signs_it_and_another_verify_and_the_daemon_sees(cell: Cell, world: World) -> None:
    for client in (cell.client, cell.peer):
        if (missing := MISSING.get(client)) is not None:
            pytest.skip(missing)
    made = prepared(world, cell)
    sign(world, cell, made)
    verify(world, cell, made, by=cell.client, who=cell.signer)
    said = verify(world, cell, made, by=cell.peer, who=cell.signer, fails=cell.refused is not None)
    assert (cell.refused or "") in said
    verify(world, cell, made, by=cell.client, who="mallory@matrix.example", fails=True)
    # npm's clients verify a statement, and not which file it is about.
    by = cell.peer if (cell.client, cell.what) == ("npm", "attest") else cell.client
    verify(world, cell, made, by=by, who=cell.signer, other=True, fails=True)

    def seen() -> list[str]:
        told = [each for each in world.loop.alerts() if cell.signer in json.dumps(each)]
        return [each["log"].partition("/")[0] for each in told if each["log"].startswith("rekor")]

    wait_until(f"the alert about {cell}", lambda: bool(seen()), seconds=PATIENCE)
    assert seen() == [f"rekor-v{cell.rekor}"]


def test_the_table_in_the_documentation_is_this_matrix() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.e2e.matrix"


@pytest.mark.skipif(MISSING["npm"] is not None, reason=str(MISSING["npm"]))
def test_npms_command_has_no_option_for_a_trust_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(NPM_CLI), "verify", __file__, "--trusted-root", "root.json"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Nonexistent flag: --trusted-root" in done.stderr
