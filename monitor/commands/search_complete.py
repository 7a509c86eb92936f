"""The proof that a search leaves no entry out, as a file, and the check of one."""

import json
from pathlib import Path
from typing import Any, Final

import typer

from alerts.inert import inert_line
from monitor.archive.files import ArchiveFiles
from monitor.archive.map_answers import answer_document
from monitor.archive.query import MatchMode, Query, keys_of
from monitor.archive.search_index import KeyKind
from monitor.archive.search_map import MEDIA_TYPE, AnswerInvalid, CheckedAnswer, check_answer
from monitor.archive.writing import read_manifests
from monitor.commands.proof_file import FindOwner
from monitor.commands.terminal import Exit, note, say, say_json
from monitor.model.errors import OwnFault

_LONGEST: Final = 2_000


def write_complete(files: ArchiveFiles, query: Query, path: Path) -> None:
    """Write the answer of one log's search maps. Raises `BadQuery`, `OwnFault`."""
    if query.match is not MatchMode.EXACT:
        raise typer.BadParameter("--complete proves one value: leave the star out, or add --match exact")
    if query.since is not None or query.until is not None:
        raise typer.BadParameter("--complete answers for all times: leave --since and --until out")
    stored = read_manifests(files)
    if (unread := next((log for log in sorted(stored.unread) if query.wants(log)), None)) is not None:
        raise stored.unread[unread]
    manifests = {log: each for log, each in stored.items() if not query.logs or log in query.logs}
    if len(manifests) != 1:
        names = ", ".join(sorted(manifests)) or "none"
        raise typer.BadParameter(f"--complete answers for one log: name it with --log ({names})")
    ((log, manifest),) = manifests.items()
    keys = [(KeyKind(span.low[0]), span.low[1:]) for span in keys_of(query)]
    document = answer_document(
        files, manifest, [(kind, query.text if kind.is_text else value.hex()) for kind, value in keys]
    )
    try:
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OwnFault(f"{path}: cannot be written: {error.strerror}") from error
    for answer in document["answers"]:
        count = sum(each["line"]["count"] for each in answer["maps"] if "line" in each)
        say(f"{log}: entries with this {answer['kind']} among the first {document['size']}: {count}")
    note(f"index root {document['index_root']}, which `signwatch peers compare` compares with other installations'")


def is_answer(raw: bytes) -> bool:
    """True if the file has the media type of an answer of search maps."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("mediaType") == MEDIA_TYPE


def checked_answer(raw: bytes, root: bytes | None, *, as_json: bool) -> CheckedAnswer | None:
    """Check an answer except for the owner of its key. If it proves nothing, print the reason and return `None`."""
    try:
        return check_answer(json.loads(raw), root)
    except AnswerInvalid as error:
        if as_json:
            say_json({"verified": False, "verdict": "shows-nothing", "reason": inert_line(str(error), _LONGEST)})
        note(f"this proves nothing: {inert_line(str(error), _LONGEST)}", "bold red")
        return None


def tell_complete(
    checked: CheckedAnswer, owner: FindOwner | None, source: str, *, root_given: bool, as_json: bool
) -> Exit:
    """Print the result of an answer: 0 under the given index root and the log's key, 1 under another key.

    3 where the index root or the key was not compared.
    """
    identity = checked.identity
    whose = None if owner is None else owner(identity.api, identity.key_name, identity.spki)
    if owner is not None and whose is None:
        verdict, code = "another-key", Exit.MISBEHAVED
    elif owner is None:
        verdict, code = "key-not-checked", Exit.UNFINISHED
    elif not root_given:
        verdict, code = "index-root-not-checked", Exit.UNFINISHED
    else:
        verdict, code = "verified", Exit.FINE
    if as_json:
        say_json(_document(checked, verdict, source, whose, root_given=root_given))
        return code
    signed = f"signed by key {checked.key_hash}"
    if code is Exit.MISBEHAVED:
        say(f"not verified: {signed}, which is no log's key in {source}", "bold red")
        say("Any person can sign such a file with a key of their own: it shows nothing about a log that you know.")
        return code
    for each in checked.keys:
        what = (
            f"entries among the first {checked.size} of {checked.log} with {each.kind.word} {each.value}: {each.count}"
        )
        say(inert_line(what, _LONGEST))
    say(f"these entries lead to a tree of size {checked.head.size}, {signed}{f', {whose}' if whose else ''}")
    if whose is None:
        say("not decided: whether that is the log's key was not checked", "yellow")
        note("Say whose key counts: --trusted-root FILE, --key FILE, --tuf public-good, or --config FILE.")
    if not root_given:
        say(f"not decided: the index root {checked.root.hex()} was not compared", "yellow")
        note("Give an index root that you trust with --index-root: `GET /api/checkpoints` of an installation shows it.")
    if code is Exit.FINE:
        say("verified: no other entry has them, under the given index root", "green")
    return code


def _document(
    checked: CheckedAnswer, verdict: str, source: str, whose: str | None, *, root_given: bool
) -> dict[str, Any]:
    return {
        "verified": verdict == "verified",
        "verdict": verdict,
        "log": checked.log,
        "size": checked.size,
        "index_root": checked.root.hex(),
        "index_root_checked": root_given,
        "head": {"size": checked.head.size, "root": checked.head.root.hex(), "key": checked.key_hash},
        "key": {"sha256": checked.key_hash, "checked_against": source or None, "owner": whose},
        "keys": [
            {"kind": each.kind.word, "value": each.value, "count": each.count, "entries": each.entries}
            for each in checked.keys
        ],
    }
