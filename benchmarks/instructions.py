"""`python -m benchmarks.instructions CORPUS`: instructions that each part of `examine` takes for one entry.

A processor's clock tells how fast one machine is today; instructions are the same on all. valgrind counts them. Its
processor has no SHA instructions, so OpenSSL hashes with AVX2 there: on a machine that has them the rows of hashing are
less than they say.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pybase64 import b64decode, b64encode
from rich.console import Console
from rich.table import Table

from benchmarks.corpus import ENTRIES, complete_corpus, read_corpus
from benchmarks.examining import BATCH, RULES, make_workload
from benchmarks.product import make_scanner
from benchmarks.watched import make_rules
from sigstore_entries.entry import Outline, outline_rekor
from sigstore_entries.field_texts import FieldTexts
from tlog.merkle import aligned_subtrees, leaf_hashes

_PIECE: Final = 128  # entries that are hashed and read at once
_TIMEOUT: Final = 900  # seconds for one version of the bodies
_LINE: Final = 64  # characters of a line of PEM
_TOTAL: Final = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)
_MARK: Final = "getppid"  # a function of the C library that nothing else here calls

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def count(
    corpus: Annotated[Path, typer.Argument(help="The entries that `python -m benchmarks --corpus` keeps.")],
    *,
    inside: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Count the instructions of each part of examining an entry, with valgrind (Debian: `apt-get install valgrind`)."""
    if inside is not None:
        _run(corpus, inside)
        return
    if shutil.which("valgrind") is None:
        typer.echo("valgrind counts the instructions and is not installed: apt-get install valgrind", err=True)
        raise typer.Exit(3)
    for done in complete_corpus(corpus):
        typer.echo(f"making entries: {done:,} of {ENTRIES:,}", err=True)
    counted = {version: _counted(corpus, version) for version in ("v1", "v2")}
    table = Table("part", *counted, title="Instructions for one entry, 1,000 rules")
    for name in counted["v1"]:
        table.add_row(name, *(f"{each[name]:,.0f}" for each in counted.values()))
    Console().print(table)


def parts(corpus: Path, version: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Name and work of each part, over one batch as the follower cuts it."""
    bodies = list(read_corpus(corpus, version, BATCH))
    scanner = make_scanner(make_rules(RULES))
    pieces = [bodies[first : first + _PIECE] for first in range(0, BATCH, _PIECE)]
    outlines = [[each for body in piece if (each := outline_rekor(body)) is not None] for piece in pieces]
    found = [each.haystack for piece in outlines for each in piece]
    coded = [b64encode(each) for each in found]
    lined = [b"\n".join(each[at : at + _LINE] for at in range(0, len(each), _LINE)) for each in coded]
    texts = FieldTexts(scanner.matcher.fields)
    shown = [texts.find([each.haystack for each in piece]) for piece in outlines]
    hashes = leaf_hashes(bodies)
    workload = make_workload(version, bodies, scanner)
    yield "an empty loop", lambda: _each(bodies, lambda _: None)
    yield "one `hashlib` call for a body, for comparison", lambda: [sha256(body).digest() for body in bodies]
    yield "leaf hashes", lambda: [leaf_hashes(piece) for piece in pieces]
    yield "tree nodes", lambda: aligned_subtrees(0, hashes)
    yield "outline: from the body to the certificate's DER", lambda: [outline_rekor(body) for body in bodies]
    yield "of it: base64 of the certificate, once", lambda: [b64decode(each, None, True) for each in coded]
    if version == "v1":
        yield "of it: the newlines of PEM", lambda: [each.replace(b"\n", b"") for each in lined]
    else:
        yield "of it: the newlines of PEM", lambda: None
    yield "of it: the value that is handed on", lambda: [_handed_on(each) for each in found]
    yield "the name in the certificate", lambda: [texts.find([each.haystack for each in piece]) for piece in outlines]
    yield "looking it up", lambda: [scanner.matcher.candidates_batch(each.texts, each.owners) for each in shown]
    yield "examine: all of it", workload.examine


def _handed_on(certificate: bytes) -> Outline:
    return Outline("hashedrekord", _FORM, certificate, (certificate,))


_FORM: Final[Any] = "certificate"


def _each(values: Sequence[bytes], work: Callable[[bytes], object]) -> None:
    for value in values:
        work(value)


def _run(corpus: Path, version: str) -> None:
    # Once unmeasured: caches are filled and constants made. valgrind writes what it counted at each mark.
    for _, work in list(parts(corpus, version)):
        work()
        os.getppid()
        work()
        os.getppid()


def _counted(corpus: Path, version: str) -> Mapping[str, float]:
    names = [name for name, _ in parts(corpus, version)]
    with tempfile.TemporaryDirectory(prefix="signwatch-instructions-") as temporary:
        command = ["valgrind", "--tool=callgrind", f"--dump-before={_MARK}", f"--callgrind-out-file={temporary}/out"]
        command += [sys.executable, "-m", "benchmarks.instructions", str(corpus), "--inside", version]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        # Dump 1 is everything before the first mark, 2 the first part, 3 what lies between it and the next, and so on.
        totals = [_total(Path(temporary) / f"out.{number}") for number in range(1, 2 * len(names) + 1)]
    return {name: totals[2 * number + 1] / BATCH for number, name in enumerate(names)}


def _total(path: Path) -> int:
    found = _TOTAL.search(path.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        raise RuntimeError(f"{path}: valgrind wrote no total")
    return int(found[1])


if __name__ == "__main__":
    app()
