"""`signwatch evidence verify`: an exported file, checked anywhere."""

import tempfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from msgspec import Struct

from alerts.inert import inert_line
from monitor.commands.proof_file import tell_proofs
from monitor.commands.terminal import DEFAULT_CONFIG, Exit, JsonOption, leave, note, say, say_json, when
from monitor.model.errors import Evidence, OwnFault
from monitor.model.log_source import LogApi
from monitor.program import utc_now
from monitor.proof.evidence import CheckedEvidence, NotEvidence, check_evidence
from monitor.proof.signing_proof import MAX_SIZE as MAX_PROOF
from monitor.proof.signing_proof import CheckedSignings, check_signings, is_signing_proof
from tlog.merkle import HASH_SIZE
from tlog.note import load_public_key

if TYPE_CHECKING:
    from monitor.trust.trust_root import TrustRoot

_ANSWER_TYPE: Final = b"application/vnd.signwatch.search-answer+json"
_LONGEST: Final = 2_000
_MAX_KEY: Final = 64 * 1024


class FileVerdict(StrEnum):
    """Verdict on an evidence file."""

    VERIFIED = "verified"
    RECORD = "record"
    KEY_NOT_CHECKED = "key-not-checked"
    ANOTHER_KEY = "another-key"
    SHOWS_NOTHING = "shows-nothing"


_CODES: Final = {
    FileVerdict.VERIFIED: Exit.FINE,
    FileVerdict.RECORD: Exit.UNFINISHED,
    FileVerdict.KEY_NOT_CHECKED: Exit.UNFINISHED,
    FileVerdict.ANOTHER_KEY: Exit.MISBEHAVED,
    FileVerdict.SHOWS_NOTHING: Exit.MISBEHAVED,
}


class _Keys(Struct, frozen=True):
    """Keys that count: those of `root`, and `bare` ones (SubjectPublicKeyInfo). `source` names their origin."""

    source: str
    root: "TrustRoot | None" = None
    bare: tuple[bytes, ...] = ()

    def owner(self, evidence: Evidence) -> str | None:
        """Owner of the key that signed, in words; `None` when it is none of these keys."""
        return self.owner_of(LogApi(evidence.api), evidence.key_name, evidence.spki)

    def owner_of(self, api: LogApi, key_name: str, spki: bytes) -> str | None:
        """Owner of a key, in words; `None` when it is none of these keys."""
        if spki in self.bare:
            return f"the key given with {self.source}"
        log = self.root.signer(api, key_name, spki) if self.root else None
        if log is None:
            return None
        ended = f", which names it as valid until {when(log.valid_until)}" if log.valid_until else ""
        return f"the key of the log at {log.url} in {self.source}{ended}"


def verify(
    file: Annotated[Path, typer.Argument(help="An exported evidence file.", dir_okay=False)],
    *,
    trusted_root: Annotated[
        Path | None,
        typer.Option("--trusted-root", help="A trusted_root.json with the keys of the logs.", dir_okay=False),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option("--key", help="The log's public key (PEM or DER); may be given again.", dir_okay=False),
    ] = None,
    tuf: Annotated[
        str | None, typer.Option("--tuf", help="Ask public-good, staging, or a TUF repository's URL for the keys.")
    ] = None,
    tuf_root: Annotated[
        Path | None, typer.Option("--tuf-root", help="First root metadata of a private TUF repository.", dir_okay=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help=f"A configuration with the trust root to use; {DEFAULT_CONFIG} here, if there is one.",
            envvar="SIGNWATCH_CONFIG",
            dir_okay=False,
        ),
    ] = None,
    index_root: Annotated[
        str | None, typer.Option("--index-root", help="For a file of `search --complete`: the index root to trust.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check an evidence file: every signature in it, its strength, and whether the key in it is the log's.

    Any person can sign a file with a key of their own, so the key must be in a trust root that you name, or in that
    of the configuration. A file of `signwatch search --prove` proves that signings are in a log. Exits 0 when it
    does, or when the log's own signatures contradict each other; 1 when the file shows nothing or the key is not the
    log's; 3 when this is undecided: the key was not checked, or the file is a record, which convinces only a reader
    who trusts its author. A file of `signwatch search --complete` also needs the index root to trust, with
    --index-root.

    Examples:
      signwatch evidence verify fork.json
      signwatch evidence verify fork.json --trusted-root trusted_root.json
      signwatch evidence verify fork.json --key log.pub --json
      signwatch evidence verify fork.json --tuf public-good
      signwatch evidence verify all-of-mine.json --index-root 4be1…
    """
    if sum(each is not None for each in (trusted_root, tuf)) + bool(key) > 1:
        raise typer.BadParameter("give one of --trusted-root, --tuf and --key", param_hint="--trusted-root")
    if tuf_root is not None and tuf is None:
        raise typer.BadParameter("--tuf-root needs --tuf with the URL of its repository")
    raw = _read(file, MAX_PROOF, "FILE")
    is_named = trusted_root is not None or tuf is not None or bool(key)

    def keys_that_count() -> _Keys | None:
        return _named_keys(trusted_root, key or [], tuf, tuf_root) if is_named else _configured_keys(config)

    if (answered := _complete_answer(raw, index_root, keys_that_count, as_json=as_json)) is not None:
        raise leave(answered)
    if index_root is not None:
        raise typer.BadParameter("the file is not one of `signwatch search --complete`", param_hint="--index-root")
    try:
        if is_signing_proof(raw):
            proven = check_signings(raw)
            raise leave(_proven(proven, keys_that_count(), as_json=as_json))
        checked = check_evidence(raw)
    except NotEvidence as error:
        if as_json:
            say_json(
                {"verified": False, "verdict": FileVerdict.SHOWS_NOTHING, "reason": inert_line(str(error), _LONGEST)}
            )
        note(f"{file}: this is no evidence of anything: {error}", "bold red")
        raise leave(_CODES[FileVerdict.SHOWS_NOTHING]) from error
    keys = keys_that_count()
    owner = keys.owner(checked.evidence) if keys is not None and checked.conclusion.signed else None
    verdict = _verdict(checked, keys, owner)
    if as_json:
        say_json(_document(checked, verdict, keys, owner))
    else:
        _show(checked, verdict, keys, owner)
    raise leave(_CODES[verdict])


def _complete_answer(
    raw: bytes, index_root: str | None, keys_that_count: Callable[[], _Keys | None], *, as_json: bool
) -> Exit | None:
    """Report on a file of `search --complete`; `None` for any other file."""
    if _ANSWER_TYPE not in raw:
        return None
    from monitor.commands.search_complete import (  # noqa: PLC0415  imports pyarrow
        checked_answer,
        is_answer,
        tell_complete,
    )

    if not is_answer(raw):
        return None
    root = _index_root(index_root)
    answer = checked_answer(raw, root, as_json=as_json)
    if answer is None:
        return Exit.MISBEHAVED
    keys = keys_that_count()
    owner, source = (None, "") if keys is None else (keys.owner_of, keys.source)
    return tell_complete(answer, owner, source, root_given=root is not None, as_json=as_json)


def _index_root(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        root = bytes.fromhex(text)
    except ValueError:
        root = b""
    if len(root) != HASH_SIZE:
        raise typer.BadParameter("an index root is 64 hexadecimal digits", param_hint="--index-root")
    return root


def _proven(checked: Sequence[CheckedSignings], keys: _Keys | None, *, as_json: bool) -> Exit:
    """Report on signings that are proven to be in a log."""
    owner, source = (None, "") if keys is None else (keys.owner_of, keys.source)
    verified = tell_proofs(checked, owner, source, as_json=as_json)
    return Exit.UNFINISHED if verified is None else Exit.FINE if verified else Exit.MISBEHAVED


def _verdict(checked: CheckedEvidence, keys: _Keys | None, owner: str | None) -> FileVerdict:
    conclusion = checked.conclusion
    if not conclusion.signed:
        return FileVerdict.RECORD
    if keys is None:
        return FileVerdict.KEY_NOT_CHECKED
    if owner is None:
        return FileVerdict.ANOTHER_KEY
    return FileVerdict.VERIFIED if conclusion.transferable else FileVerdict.RECORD


def _show(checked: CheckedEvidence, verdict: FileVerdict, keys: _Keys | None, owner: str | None) -> None:
    signed = f"signed by key {checked.key_hash}"
    match verdict:
        case FileVerdict.VERIFIED:
            say("verified, transferable: the log signed against itself", "green")
            say(f"{signed}, {owner}")
        case FileVerdict.RECORD if owner is not None:
            say("a record only: its signatures alone do not prove the server's answer", "yellow")
            say(f"{signed}, {owner}")
        case FileVerdict.RECORD:
            say(
                "a record only: the log signed no part of the file, so it convinces only a reader who trusts its "
                "author",
                "yellow",
            )
        case FileVerdict.ANOTHER_KEY:
            source = keys.source if keys is not None else ""
            say(f"not verified: {signed}, which is no log's key in {source}", "bold red")
            say("Any person can sign such a file with a key of their own: it shows nothing about a log that you know.")
            return
        case _:
            say(f"not decided: {signed}; whether that is the log's key was not checked", "yellow")
            say(f"The file names the log {checked.evidence.log} with the key name {checked.evidence.key_name}.")
            note("Name the log's key: --trusted-root FILE, --key FILE, --tuf public-good, or --config FILE.")
    for sentence in checked.conclusion.sentences:
        say(sentence)


def _document(checked: CheckedEvidence, verdict: FileVerdict, keys: _Keys | None, owner: str | None) -> dict[str, Any]:
    evidence, conclusion = checked.evidence, checked.conclusion
    return {
        "verified": verdict is FileVerdict.VERIFIED,
        "verdict": verdict,
        "transferable": conclusion.transferable,
        "kind": evidence.kind,
        "key": {
            "sha256": checked.key_hash,
            "name": inert_line(evidence.key_name, _LONGEST),
            "checked_against": keys.source if keys is not None else None,
            "owner": owner,
        },
        "shows": [inert_line(each, _LONGEST) for each in conclusion.sentences],
    }


def _named_keys(trusted_root: Path | None, files: list[Path], tuf: str | None, tuf_root: Path | None) -> _Keys:
    if files:
        return _Keys("--key", bare=tuple(_public_key(each) for each in files))
    # These bring the readers of certificates and of the configuration: no file that shows nothing needs them.
    from monitor.config import TrustConfig  # noqa: PLC0415
    from monitor.trust.provider import TrustKeeper  # noqa: PLC0415
    from monitor.trust.trust_root import MAX_SIZE, read_trust_root  # noqa: PLC0415

    if trusted_root is not None:
        try:
            return _Keys(str(trusted_root), read_trust_root(_read(trusted_root, MAX_SIZE, "--trusted-root")))
        except OwnFault as error:
            raise typer.BadParameter(f"{trusted_root}: {error}", param_hint="--trusted-root") from error
    with tempfile.TemporaryDirectory(prefix="signwatch-") as folder:
        trust = TrustKeeper(TrustConfig(tuf=tuf, tuf_root=tuf_root, folder=Path(folder)), utc_now)
        return _Keys(f"the trust root of {tuf}", trust.kept().root)


def _configured_keys(config: Path | None) -> _Keys | None:
    """Keys of every log that the configuration's trust root names or named; `None` without a configuration."""
    path = config or DEFAULT_CONFIG
    if config is None and not path.is_file():
        return None
    from monitor.commands.evidence import configured_root

    return _Keys(f"the trust root of {path}", configured_root(path))


def _public_key(file: Path) -> bytes:
    # It brings OpenSSH's formats, a twentieth of the start of a command that is given no key.
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )

    raw = _read(file, _MAX_KEY, "--key")
    try:
        if raw.lstrip().startswith(b"-----BEGIN"):
            loaded = load_pem_public_key(raw)
            raw = loaded.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        load_public_key(raw)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise typer.BadParameter(f"{file}: not a public key in PEM or DER: {error}", param_hint="--key") from error
    return raw


def _read(file: Path, limit: int, hint: str) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(limit + 1)
    except OSError as error:
        raise typer.BadParameter(f"{file}: cannot be read: {error.strerror}", param_hint=hint) from error
