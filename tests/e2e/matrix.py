"""Which client does what, in which Rekor, with trust from where: tried by the tests, shown by the documentation.

`python -m tests.e2e.matrix` writes the table into docs/private-sigstore.md.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "private-sigstore.md"
BEGIN: Final = "<!-- written by python -m tests.e2e.matrix -->\n"
END: Final = "<!-- end of the matrix -->\n"
WORK: Final = {
    "cosign": ("sign", "attest", "image"),
    "sign-lite": ("sign", "attest", "image"),
    "PyPI": ("sign", "attest"),
    "npm": ("sign", "attest"),
}
REKORS: Final = (1, 2)
TRUSTS: Final = ("file", "TUF")
# Which other client verifies as well.
PEERS: Final = {
    **{("cosign", what): "sign-lite" for what in WORK["cosign"]},
    **{("sign-lite", what): "cosign" for what in WORK["sign-lite"]},
    **{("PyPI", what): "cosign" for what in WORK["PyPI"]},
    ("npm", "sign"): "sign-lite",
    ("npm", "attest"): "cosign",
}
# The other client where it refuses, and its own words: npm sends Rekor v2 a `dsse` entry, which newer ones do not take.
PEER_REFUSALS: Final = {("npm", "attest", 2): ("sign-lite", "Unsupported DSSE log entry type: dsse/0.0.2")}


@dataclass(frozen=True, slots=True)
class Cell:
    """One way of signing: by `client`, of a file (sign), a statement about it (attest) or an image."""

    client: str
    what: str
    rekor: int
    trust: str

    @property
    def signer(self) -> str:
        """Address of a signer that signs in this way alone."""
        return f"{self.client}.{self.what}.v{self.rekor}.{self.trust}@matrix.example".lower()

    @property
    def peer(self) -> str:
        """The other client that verifies it, or refuses."""
        refused = PEER_REFUSALS.get((self.client, self.what, self.rekor))
        return PEERS[self.client, self.what] if refused is None else refused[0]

    @property
    def refused(self) -> str | None:
        """What the other client says when it refuses."""
        refused = PEER_REFUSALS.get((self.client, self.what, self.rekor))
        return None if refused is None else refused[1]

    def __str__(self) -> str:
        return f"{self.client}-{self.what}-v{self.rekor}-{self.trust}"


def cells() -> Iterator[Cell]:
    """Each cell of the matrix."""
    for client, works in WORK.items():
        for what in works:
            for rekor in REKORS:
                for trust in TRUSTS:
                    yield Cell(client, what, rekor, trust)


def versions() -> dict[str, str]:
    """Version of each client that the tests run, from where it is pinned."""
    built = re.search(r"^build cosign v(3\S+)", (ROOT / ".ci" / "install-go-clients").read_text(), re.MULTILINE)
    npm = json.loads((ROOT / "tests" / "npm_client" / "package.json").read_text())["dependencies"]
    return {
        "cosign": built[1] if built else "",
        "sign-lite": "this one",
        "PyPI": version("sigstore"),
        "npm": f"cli {npm['@sigstore/cli']}, sign {npm['@sigstore/sign']}",
    }


def table() -> str:
    """The matrix as a table of the documentation."""
    head = ["client", "version", "what", "verified by", *(f"v{rekor}, {trust}" for rekor in REKORS for trust in TRUSTS)]
    lines = [head, ["---"] * len(head)]
    known = versions()
    for client, works in WORK.items():
        for what in works:
            row = [client, known[client], what, f"itself, {PEERS[client, what]}"]
            for rekor in REKORS:
                for trust in TRUSTS:
                    cell = Cell(client, what, rekor, trust)
                    row.append("yes" if cell.refused is None else f"by itself; {cell.peer}: `{cell.refused}`")
            lines.append(row)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page() -> str:
    """The page with the table of today."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page())
