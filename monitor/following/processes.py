"""Processes that examine entries: forked with compiled rules, or spawned to compile them; they end with the parent."""

import gc
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait

from monitor.following.scan_batch import RuleScanner, ScannedBatch, scan_batch
from monitor.model.errors import OwnFault
from monitor.model.log_source import LogApi, LogEntry
from rules.matching.matcher import Matcher, compile_rules
from rules.rule import RuleSet

_matcher: Matcher | None = None


def forked(matcher: Matcher, jobs: int) -> ProcessPoolExecutor:
    """Processes that share the compiled rules in memory, forked at once: before there is a thread or a connection."""
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(matcher,))
    # The garbage collector does not write to frozen objects, so their pages stay shared after the fork. They stay
    # frozen, with the modules, which are frozen before: at its end the program would free each of them.
    gc.collect()
    gc.freeze()
    # The first task forks every process: now, while there is one thread and no connection.
    pool.submit(os.getpid).result()
    return pool


def spawned(rules: RuleSet, jobs: int) -> ProcessPoolExecutor:
    """Processes that are started with the first task, and each compile the rules."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_anew, initargs=(rules,))


def _begin_anew(rules: RuleSet) -> None:
    # Before compiling, which takes seconds for a million rules: the parent may end meanwhile.
    _begin(compile_rules(rules.rules))


def _begin(matcher: Matcher) -> None:
    global _matcher  # noqa: PLW0603  what the fork shares
    _matcher = matcher
    begin_worker()


def begin_worker() -> None:
    """Set up a process of a pool: it ends with its parent, and ignores interrupts."""
    # Ctrl-C reaches the whole process group; the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent closes no pool: without this its processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def work(entries: tuple[LogEntry, ...], start: int, log: str, api: LogApi) -> ScannedBatch:
    """A batch as the rules of this process select from it."""
    if _matcher is None:
        raise OwnFault("this process was given no rules")
    return scan_batch(entries, start, log, api, RuleScanner(_matcher))
