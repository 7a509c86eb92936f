"""Cost of a million subscriptions: time and memory to compile, and the rate that is left."""

import time
from pathlib import Path
from typing import Final

from benchmarks.corpus import read_corpus
from benchmarks.examining import Workload, make_workload
from benchmarks.measure import peak_memory, relative_rate
from benchmarks.product import make_scanner
from benchmarks.watched import make_rules
from rules.matching.matcher import compile_rules

_ENTRIES: Final = 25_000
_GIB: Final = 1 << 30


def measure_build() -> dict[str, float]:
    """Figures `rules_1m_build_s` and `rules_1m_build_gb`.

    Seconds of processor time to compile a million rules; and the peak of the whole process in GiB, with the
    interpreter, the imports, the million rules as values, and everything compiling needed on the way.
    """
    rules = make_rules(1_000_000)
    started = time.process_time()
    compile_rules(rules)
    seconds = time.process_time() - started
    return {"rules_1m_build_s": seconds, "rules_1m_build_gb": peak_memory() / _GIB}


def measure_count(corpus: Path, count: int, name: str) -> dict[str, float]:
    """Rate of `examine` with `count` rules over its rate with one rule."""
    bodies = read_corpus(corpus, "v2", _ENTRIES)
    many, one = _workload(bodies, count), _workload(bodies, 1)
    return {name: relative_rate(many.examine, one.examine, rounds=7)}


def _workload(bodies: list[bytes], count: int) -> Workload:
    return make_workload("v2", bodies, make_scanner(make_rules(count)))
