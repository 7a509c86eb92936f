"""`signwatch search`: every archived entry with a value, and the exact coverage of the answer."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from msgspec.structs import replace

from alerts.alert import counted
from alerts.inert import inert_json, inert_line
from monitor.archive.answer import ArchiveRow, SearchAnswer, SearchCoverage, row_of
from monitor.archive.csv_rows import CSV_HEAD, csv_line
from monitor.archive.files import ArchiveFiles
from monitor.archive.histogram import as_svg, as_text
from monitor.archive.query import BadQuery, MatchMode, Query, guessed_match, read_moment, whole_name
from monitor.archive.rows import SCHEMA
from monitor.archive.search import Archive
from monitor.archive.search_index import SEARCHED, KeyKind
from monitor.archive.writing import lost_manifests
from monitor.commands.search_complete import write_complete
from monitor.commands.search_proof import write_proof
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, Exit, leave, note, say, say_json, table, when
from monitor.config import Config, load_config
from monitor.daemon.followed_logs import configured_logs
from monitor.daemon.trust_watch import trust_of
from monitor.model.errors import BadConfig, FetchFailed, OwnFault
from monitor.program import utc_now
from monitor.store.database import open_database, sqlite_path
from monitor.store.reading import Reading

_SHOWN: Final = 50
_WORD: Final = 200
_ROW_GROUP: Final = 32_768  # rows
Damaged = dict[str, list[tuple[int, int, str]]]


def archive_of(config: Config) -> Archive:
    """The configured archive. Raises `BadConfig` when there is none."""
    if config.archive is None:
        raise BadConfig(
            f"{config.path}: no archive is configured, so there is no data to search. Add `archive:` with a "
            "`location`, "
            "then `signwatch archive build`, or let `signwatch run` fill it. docs/search.md says how."
        )
    followed: list[str] = []
    with suppress(OwnFault, FetchFailed):
        # A search of the archive needs no trust root.
        followed = [log.name for log in configured_logs(config, trust_of(config.trust, utc_now, None))]
    return Archive(ArchiveFiles(config.archive.location), followed)


def search(
    text: Annotated[
        str | None, typer.Argument(help="An identity, repository, workflow, issuer, digest or fingerprint.")
    ] = None,
    *,
    entry: Annotated[str | None, typer.Option("--entry", help="Instead: this entry, as LOG:INDEX.")] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="identity, issuer, repository, workflow, digest or fingerprint; may be repeated."),
    ] = None,
    match: Annotated[
        MatchMode | None,
        typer.Option("--match", help="exact, prefix or glob; by default it follows from a star in the text."),
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="2026-01-31, with a time, or 30d before now.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before this moment, written like --since.")] = None,
    logs: Annotated[list[str] | None, typer.Option("--log", help="Only this log; may be given again.")] = None,
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Only entries of signers with a certificate of a trusted authority.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=0,
            help="Entries shown or exported; by default the newest 50 are shown, and exports give all.",
        ),
    ] = None,
    prove: Annotated[
        Path | None, typer.Option("--prove", help="Write the shown entries with their proofs.", dir_okay=False)
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="With --prove: do not fetch the entries' bytes from the log.")
    ] = False,
    complete: Annotated[
        Path | None, typer.Option("--complete", help="Write the proof that no entry is left out.", dir_okay=False)
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines: an entry each, then a summary.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Write a Parquet file.", dir_okay=False)] = None,
    histogram: Annotated[Path | None, typer.Option("--svg", help="Write entries a day as SVG.", dir_okay=False)] = None,
) -> None:
    """Find every archived entry with a value, newest first, and print the coverage of the answer.

    A to Z and a to z are the same. `acme*` finds values that begin with acme, `*@acme.example` values that match the
    glob. Exits 3 when a file of the archive is damaged, because entries may be missing from the answer.

    Examples:
      signwatch search you@example.com
      signwatch search 'https://github.com/acme/*' --since 30d --trusted
      signwatch search sha256:8b1a9953c4611296a827abf8c47804d7e6c49c6b97f2b4d3c5e8a9f0b1c2d3e4 --json
      signwatch search 'https://github.com/acme/*' --parquet acme.parquet
      signwatch search you@example.com --prove mine.json
      signwatch search --entry rekor-v2:1234 --prove signing.json
      signwatch search you@example.com --log rekor-v2 --complete all-of-mine.json
    """
    _check_outputs(entry, complete, (as_json, as_csv, parquet is not None, prove is not None, complete is not None))
    settings = load_config(config)
    archive = archive_of(settings)
    _check_logs(archive, logs or ())
    verdicts = Verdicts(settings)
    if entry is not None or text is None:
        if entry is None or text is not None:
            raise typer.BadParameter("give a text to search for, or --entry LOG:INDEX")
        answer = _one_entry(archive, entry)
        if prove is not None:
            write_proof(settings, archive.files, answer, entry, prove, offline=offline)
        elif as_json:
            say_json(answer.rows[0].document() | {"verdicts": verdicts(answer.rows)[0]})
        else:
            _show(answer, verdicts(answer.rows))
        raise leave(Exit.FINE)
    text = text if match is not None else _whole_name(text)
    query = Query(
        text,
        frozenset(_kind(each) for each in kind or ()),
        match or guessed_match(text),
        _moment(since, "--since"),
        _moment(until, "--until"),
        frozenset(logs or ()),
        _SHOWN if limit is None else limit,
        trusted or None,
    )
    damaged: Damaged = {}
    try:
        if complete is not None:
            write_complete(archive.files, query, complete)
            raise leave(Exit.FINE)
        if as_json or as_csv or parquet is not None:
            with _sink(parquet, verdicts, as_csv=as_csv) as put:
                count = _export(archive, query, limit, damaged, put)
            total = _counted(archive, query, count, damaged) if count == limit else count
            coverage = archive.coverage(query, damaged)
            _summarise(coverage, count, total, as_json=as_json)
        else:
            answer = archive.search(query, per_day=prove is None)
            coverage = answer.coverage
            _show(answer, verdicts(answer.rows))
            if prove is not None:
                write_proof(settings, archive.files, answer, text, prove, offline=offline)
        if histogram is not None:
            days = archive.search(query, per_day=True).per_day
            _write(histogram, as_svg(days, f"Entries a day that name {inert_line(text, _WORD)}"))
    except BadQuery as error:
        raise typer.BadParameter(str(error)) from error
    raise leave(_end(archive, query, coverage))


def _check_outputs(entry: str | None, complete: Path | None, outputs: Sequence[bool]) -> None:
    if sum(outputs) > 1:
        raise typer.BadParameter("give only one of --json, --csv, --parquet, --prove and --complete")
    if entry is not None and complete is not None:
        raise typer.BadParameter("--complete is of a value, not of one entry", param_hint="--complete")


def _check_logs(archive: Archive, logs: Sequence[str]) -> None:
    """Refuse a log that is neither followed nor archived. Without a trust root the followed logs may be unknown."""
    manifests = archive.manifests()
    known = {*archive.followed, *manifests, *manifests.unread}
    names = {name for log in known for name in (log, log.partition("/")[0])}
    for log in logs if archive.followed else ():
        if log not in names and log.partition("/")[0] not in archive.followed:
            raise typer.BadParameter(f"no log is named {log!r}; logs: {', '.join(sorted(known))}", param_hint="--log")


def _whole_name(text: str) -> str:
    whole = whole_name(text)
    if whole != text:
        note(f"searched for: {inert_line(whole, _WORD)}")
    return whole


def _one_entry(archive: Archive, entry: str) -> SearchAnswer:
    log, _, number = entry.rpartition(":")
    if not log or not number.isdecimal():
        raise typer.BadParameter("write LOG:INDEX, such as rekor-v2:1234", param_hint="--entry")
    row = archive.entry(log, int(number[:19]))
    if row is None:
        raise OwnFault(
            f"entry {number} of {log} is not archived: `signwatch archive build --log {log} --from {number} --to "
            f"{int(number[:19]) + 1}` archives it"
        )
    return SearchAnswer((row,), 1, archive.coverage(Query("*", logs=frozenset({log})), {}))


def _kind(word: str) -> KeyKind:
    known = {kind.word: kind for kind in SEARCHED}
    if word not in known:
        raise typer.BadParameter(f"{word!r} is none of {', '.join(known)}", param_hint="--kind")
    return known[word]


def _moment(text: str | None, option: str) -> datetime | None:
    try:
        return None if text is None else read_moment(text, utc_now())
    except BadQuery as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


class Verdicts:
    """Outcomes by rule for each row, from this installation's database if there is one."""

    def __init__(self, config: Config) -> None:
        self._database = config.database

    def __call__(self, rows: Sequence[ArchiveRow]) -> list[dict[str, str]]:
        """One mapping for each row; empty for entries that no rule selected. Raises `OwnFault`."""
        path = sqlite_path(self._database)
        if path is not None and not path.exists():
            return [{} for _ in rows]
        with closing(open_database(self._database)) as database:
            reading = Reading(database)
            found = {
                log: reading.verdicts(log, [row.index for row in rows if row.log == log])
                for log in dict.fromkeys(row.log for row in rows)
            }
        return [found[row.log].get(row.index, {}) for row in rows]


def _show(answer: SearchAnswer, verdicts: Sequence[dict[str, str]]) -> None:
    if answer.rows:
        columns = ("time", "log", "entry", "kind", "who", "issuer", "digest", "chain", "verdict")
        table(columns, [_cells(row, each) for row, each in zip(answer.rows, verdicts, strict=True)])
    if sys.stdout.isatty() and len(answer.per_day) > 1:
        for line in as_text(answer.per_day, shutil.get_terminal_size().columns):
            say(line)
    note(
        f"{counted(answer.total, 'entry')} {'matches' if answer.total == 1 else 'match'}"
        + (f"; the newest {len(answer.rows)} are shown" if answer.cut else ""),
        "bold",
    )
    _tell_coverage(answer.coverage)


def _cells(row: ArchiveRow, verdicts: Mapping[str, str]) -> tuple[object, ...]:
    at = when(row.time)
    who = next(iter((*row.identities, *row.fingerprints)), None)
    verdict = ", ".join(f"{rule}: {outcome}" for rule, outcome in sorted(verdicts.items())) or None
    issuer, digest = next(iter(row.issuers), None), next(iter(row.digests), None)
    chains = ", ".join(dict.fromkeys(row.chains)) or None
    return at, row.log, row.index, row.kind, who, issuer, digest, chains, verdict


def _end(archive: Archive, query: Query, coverage: SearchCoverage) -> Exit:
    """Prints damaged and uncovered ranges; returns 3 if entries may be missing from the answer, else 0."""
    lost = [why for log, why in lost_manifests(archive.files).items() if query.wants(log)]
    for why in lost:
        note(inert_line(why, 2_000), "bold red")
    return Exit.UNFINISHED if lost or coverage.unread or any(each.damaged for each in coverage.logs) else Exit.FINE


def _tell_coverage(coverage: SearchCoverage) -> None:
    for each in coverage.logs:
        note(inert_line(each.sentence(), 2_000), "green" if each.complete else "yellow")
    for log in coverage.missing:
        note(f"not covered: {log}: nothing of it is archived", "yellow")
    for log, why in coverage.unread:
        note(inert_line(f"not covered: {log}: {why}", 2_000), "bold red")
    if not (coverage.logs or coverage.missing or coverage.unread):
        note("not covered: nothing is archived", "yellow")


def _export(archive: Archive, query: Query, limit: int | None, damaged: Damaged, put: Any) -> int:
    """Pass every entry, or the first `limit`, to `put`; returns their number."""
    count = 0
    for rows in archive.stream(query, damaged):
        part = rows if limit is None else rows.slice(0, limit - count)
        put(part)
        count += len(part)
        if limit is not None and count >= limit:
            break
    return count


def _counted(archive: Archive, query: Query, count: int, damaged: Damaged) -> int:
    """Number of all matching entries, for an export that ended after `count`; adds the damage behind its end."""
    answer = archive.search(replace(query, limit=0))
    for each in answer.coverage.logs:
        damaged[each.log] = sorted({*damaged.get(each.log, ()), *each.damaged})
    return max(count, answer.total)


@contextmanager
def _sink(parquet: Path | None, verdicts: Verdicts, *, as_csv: bool) -> Iterator[Any]:
    if parquet is not None:
        try:
            with parquet.open("wb") as opened, pq.ParquetWriter(opened, SCHEMA, compression="zstd") as writer:
                groups = _RowGroups(writer)
                yield groups.put
                groups.finish()
        except OSError as error:
            raise OwnFault(f"{parquet}: cannot be written: {error.strerror or error}") from error
    elif as_csv:
        yield _csv_lines()
    else:
        yield lambda rows: _json_lines(rows, verdicts)


def _json_lines(rows: pa.Table, verdicts: Verdicts) -> None:
    found = [row_of(each) for each in rows.to_pylist()]
    for row, each in zip(found, verdicts(found), strict=True):
        sys.stdout.write(json.dumps(inert_json(row.document() | {"verdicts": each})) + "\n")


def _csv_lines() -> Callable[[pa.Table], None]:
    sys.stdout.write(CSV_HEAD)

    def put(rows: pa.Table) -> None:
        for each in rows.to_pylist():
            sys.stdout.write(csv_line(row_of(each)))

    return put


class _RowGroups:
    """Rows of a Parquet file in row groups of some size: each takes memory until the file is complete."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[pa.Table] = []

    def put(self, rows: pa.Table) -> None:
        """Take some rows."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= _ROW_GROUP:
            self.finish()

    def finish(self) -> None:
        """Write the rows that wait."""
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting))
            self._waiting = []


def _summarise(coverage: SearchCoverage, count: int, total: int, *, as_json: bool) -> None:
    if as_json:
        numbers = {"entries": count, "total": total, "left_out": total - count}
        summary = {"summary": {**numbers, "coverage": coverage.document()}}
        sys.stdout.write(json.dumps(inert_json(summary)) + "\n")
    if count < total:
        match = f"{counted(total, 'entry')} {'matches' if total == 1 else 'match'}"
        note(f"{match}; only the first {count:,} are written, log by log, oldest first", "bold yellow")
    elif not as_json:
        note(counted(count, "entry"), "bold")
    if not as_json:
        _tell_coverage(coverage)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OwnFault(f"{path}: cannot be written: {error.strerror or error}") from error
