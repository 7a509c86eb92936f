"""Cost of a hit: fifty thousand self-made certificates, all in a watched name."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from benchmarks.corpus import body_v2, framed, leaf_key, read_corpus
from benchmarks.examining import make_workload
from benchmarks.following import Following
from benchmarks.noise import impostor
from benchmarks.product import make_scanner
from benchmarks.tile_log import served
from benchmarks.year import RULES, WHOLE_YEAR, Event, simulated_year
from command_line.program import settle
from monitor.following.follower import FollowLimits
from rules.rule_file import load_rules
from tlog.tiles import TILE_WIDTH

_PASSES: Final = 5
_PART: Final = 1_000
_VERIFICATIONS: Final = 2_000


def measure_hits() -> dict[str, float]:
    """Figures `hit_over_ecdsa` and `hits_over_examine`: processor time of following entries all of which are hits.

    Each pass over a fifth of them is compared with examining (hashing, decoding, matching) the same entries.
    """
    scanner = make_scanner(load_rules(RULES).rules)
    forged = [event for event in simulated_year()[0] if not event.genuine]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = _write_log(folder, forged)
        part = -(-size // _PASSES)
        bodies = read_corpus(folder, "v2", size)
        with (
            served(folder, size) as log,
            closing(Following(log, folder, scanner, FollowLimits(entries_per_pass=part))) as following,
        ):
            costs, ratios, hits = [], [], 0
            settle()  # as a program does once its command is imported
            for first in range(0, size, part):
                workload = make_workload("v2", bodies[first : first + part], scanner)
                began = time.process_time()
                report = following.run_pass()
                followed = time.process_time() - began
                began = time.process_time()
                workload.examine()
                scanned = time.process_time() - began
                hits += report.findings
                costs.append(followed / report.entries / _verification())
                ratios.append(scanned / followed)
    if size != WHOLE_YEAR.self_signed or hits < size:
        raise RuntimeError(f"{hits} findings in {size} entries: not every entry is a hit")
    return {
        "hit_over_ecdsa": statistics.median(costs),
        "hits_over_examine": statistics.median(ratios),
    }


def _verification() -> float:
    """Processor seconds of one ECDSA verification on P-256 with SHA-256, of 32 bytes."""
    message, key = bytes(32), leaf_key().public_key()
    signature = leaf_key().sign(message, ec.ECDSA(SHA256()))
    began = time.process_time()
    for _ in range(_VERIFICATIONS):
        key.verify(signature, message, ec.ECDSA(SHA256()))
    return (time.process_time() - began) / _VERIFICATIONS


def _write_log(folder: Path, events: Sequence[Event]) -> int:
    """Write the events' entries, on every core, as `benchmarks.tile_log` serves them; returns how many there are."""
    parts = [events[start : start + _PART] for start in range(0, len(events), _PART)]
    with ProcessPoolExecutor() as pool:
        bodies = b"".join(pool.map(_bodies, parts))
    # The served log is made of whole bundles: entries without a watched name fill the last one.
    missing = -len(events) % TILE_WIDTH
    (folder / "v2").write_bytes(bodies + framed(b'{"kind":"padding"}') * missing)
    return len(events)


def _bodies(events: Sequence[Event]) -> bytes:
    certificates = (impostor().issue(event.identity, at=event.at) for event in events)
    made = (body_v2(der, event.digest, leaf_key()) for der, event in zip(certificates, events, strict=True))
    return b"".join(framed(body) for body in made)
