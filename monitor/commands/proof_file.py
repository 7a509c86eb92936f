"""Output for a file of proven signings, for people and for scripts."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from alerts.alert import counted
from alerts.inert import inert_line
from monitor.commands.terminal import note, say, say_json
from monitor.model.log_source import LogApi
from monitor.proof.signing_proof import CheckedSignings

_LONGEST: Final = 2_000
FindOwner = Callable[[LogApi, str, bytes], str | None]


def tell_proofs(
    checked: Sequence[CheckedSignings], owner: FindOwner | None, source: str, *, as_json: bool
) -> bool | None:
    """Print the contents of a file of proven signings. True if every key is a log's, None if that was not checked."""
    owners = [None if owner is None else owner(*_key(each)) for each in checked]
    verified = None if owner is None else all(owners)
    if as_json:
        say_json(_document(checked, owners, source, verified=verified))
        return verified
    for each, who in zip(checked, owners, strict=True):
        signed = f"signed by key {each.key_hash}"
        if who is not None:
            say(
                f"verified: {counted(len(each.sentences), 'entry')} in the log of {counted(each.head.size, 'entry')}",
                "green",
            )
            say(f"{signed}, {who}")
        elif owner is None:
            say(f"not decided: {signed}; whether that is the log's key was not checked", "yellow")
            note("Say whose key counts: --trusted-root FILE, --key FILE, --tuf public-good, or --config FILE.")
        else:
            say(f"not verified: {signed}, which is no log's key in {source}", "bold red")
            continue
        for sentence in each.sentences:
            say(inert_line(sentence, _LONGEST))
    return verified


def _key(each: CheckedSignings) -> tuple[LogApi, str, bytes]:
    return each.signings.api, each.signings.key_name, each.signings.spki


def _document(
    checked: Sequence[CheckedSignings], owners: Sequence[str | None], source: str, *, verified: bool | None
) -> dict[str, Any]:
    return {
        "verified": bool(verified),
        "verdict": {True: "verified", False: "another-key", None: "key-not-checked"}[verified],
        "checked_against": source or None,
        "logs": [
            {
                "log": each.signings.log,
                "size": each.head.size,
                "root": each.head.root.hex(),
                "key": {"sha256": each.key_hash, "name": each.signings.key_name, "owner": who},
                "entries": [entry.index for entry in each.signings.entries],
                "shows": list(each.sentences),
            }
            for each, who in zip(checked, owners, strict=True)
        ],
    }
