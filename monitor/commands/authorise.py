"""`signwatch authorise`: announce the signing of one artifact, so that it is expected."""

import hashlib
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from addresses.image_name import BadImageName, parse_image_name
from alerts.alert import counted
from monitor.commands.entry_file import signings_in
from monitor.commands.git_objects import read_object
from monitor.commands.terminal import DEFAULT_CONFIG, ConfigOption, JsonOption, duration, say, say_json, table, when
from monitor.config import load_config
from monitor.judging.rule_file import read_rules
from monitor.program import utc_now
from monitor.store.authorisations import Authorisations
from monitor.store.database import open_database
from monitor.store.facts import StoredPastFacts
from monitor.store.reading import Reading
from rules.facts import Authorisation
from rules.selection import digest_text, normal_digest
from sigstore_entries.client_keys import HASHES
from sigstore_entries.git_signature import NoGitSignature, read_git_signature
from sigstore_entries.release import Release, released_commit, released_image
from sigstore_entries.signing import EntryRef

_CHUNK: Final = 1024 * 1024
_NO_ENTRY: Final = EntryRef("", -1)


def add(  # noqa: PLR0917
    rule: Annotated[str, typer.Argument(help="The rule's id.")],
    digest: Annotated[str | None, typer.Argument(help="The digest that the log will show, such as sha256:….")] = None,
    image: Annotated[
        str | None, typer.Option("--image", help="An image instead, with its digest.", metavar="REGISTRY/NAME@sha256:…")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="A file instead.", exists=True, dir_okay=False)] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="A bundle made before it is published.", exists=True, dir_okay=False)
    ] = None,
    commit: Annotated[
        str | None, typer.Option("--commit", help="A commit or tag of the repository here.", metavar="REV")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=1_000_000, help="Number of expected signings.")] = 1,
    within: Annotated[str, typer.Option("--for", help="Validity, such as 6h or 2d.")] = "24h",
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    why: Annotated[str, typer.Option("--note", help="What for.")] = "",
) -> None:
    """Authorise a number of signings of one artifact under one rule, for a while.

    A log shows the digest of a statement about an image or a commit, which follows from the image's digest or the
    commit's id. With --image and --commit, the command authorises every digest under which one signature may be
    logged; these digests count together.

    Examples:
      signwatch authorise add acme-release sha256:9f86d0… --count 1 --for 2h --note "release 1.4.2"
      signwatch authorise add acme-release --image ghcr.io/acme/widget@sha256:9f86d0…
      signwatch authorise add acme-release --file dist/widget-1.4.2.tar.gz
      signwatch authorise add acme-release --commit v1.4.2
    """
    settings = load_config(config)
    known = [each.id for each in read_rules(settings.rules, settings.channels).rules]
    if rule not in known:
        raise typer.BadParameter(f"there is no rule {rule!r}; rules: {', '.join(known[:20])}", param_hint="RULE")
    if sum(each is not None for each in (digest, image, file, bundle, commit)) != 1:
        raise typer.BadParameter("give exactly one of: a digest, --image, --file, --bundle, --commit")
    try:
        release = _release(digest, image, file, bundle, commit)
    except (BadImageName, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="DIGEST" if digest is not None else None) from error
    first, expires = release.digests[0], utc_now() + duration(within)
    leave_given = Authorisation(first, count, expires, why, release.what, release.digests)
    with closing(open_database(settings.database)) as database:
        number = Authorisations(database).add(rule, leave_given, utc_now())
    often = counted(count, "time")
    say(f"authorisation {number}: {often} {release.what} under {rule} until {when(leave_given.expires)}")
    if release.digests != (release.what,):
        for each in release.digests:
            say(f"  the log may show {each}")


def _release(
    digest: str | None, image: str | None, file: Path | None, bundle: Path | None, commit: str | None
) -> Release:
    """The announced artifact, and the digests that the log may show for it. Raises `ValueError`, `BadConfig`."""
    if image is not None:
        return released_image(parse_image_name(image))
    if file is not None:
        return Release(f"file {file.name}", _hashes(file))
    if bundle is not None:
        return _of_bundle(bundle)
    if commit is not None:
        found = read_object(Path(), commit)
        attributes = None
        with suppress(NoGitSignature):
            attributes = read_git_signature(found.raw).signed_attributes
        return released_commit(found.id, attributes, found.kind)
    normal = normal_digest(digest or "")
    return Release(normal, (normal,))


def _hashes(file: Path) -> tuple[str, ...]:
    """Each digest that a log may show: its hash is that of the key that signs."""
    digests = {name: hashlib.new(name) for name in HASHES}
    with file.open("rb") as opened:
        while part := opened.read(_CHUNK):
            for each in digests.values():
                each.update(part)
    return tuple(f"{name}:{each.hexdigest()}" for name, each in digests.items())


def _of_bundle(file: Path) -> Release:
    """The first digest of each log entry in a bundle."""
    found = [signing for signing in signings_in(file) if signing.digests]
    if not found:
        raise ValueError(f"{file}: its bundles have no log entry: authorise the signed file instead")
    return Release(f"bundle {file.name}", tuple(dict.fromkeys(digest_text(each.digests[0]) for each in found)))


def list_authorisations(config: ConfigOption = DEFAULT_CONFIG, *, as_json: JsonOption = False) -> None:
    """List every authorisation, with the number of signings that used it.

    Examples:
      signwatch authorise list
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        past = StoredPastFacts(database)
        given = Reading(database).authorisations(lambda rule, digest: past.times_signed(rule, digest, _NO_ENTRY))
    now = utc_now()
    rows = [
        {
            "number": each.number,
            "rule": each.rule,
            "what": each.what,
            "digests": list(each.digests),
            "count": each.count,
            "used": each.used,
            "expires": when(each.expires),
            "state": "revoked" if each.revoked_at else "expired" if each.expires < now else "in force",
            "note": each.note,
        }
        for each in given
    ]
    if as_json:
        say_json({"authorisations": rows})
        return
    columns = ("number", "rule", "what", "count", "used", "expires", "state", "note")
    table(columns, [[row[name] for name in columns] for row in rows])


def revoke(
    number: Annotated[int, typer.Argument(help="The authorisation's number.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """End an authorisation. Earlier signings under it keep their verdicts.

    Examples:
      signwatch authorise revoke 3
    """
    settings = load_config(config)
    with closing(open_database(settings.database)) as database:
        found = Authorisations(database).revoke(number, utc_now())
    if not found:
        raise typer.BadParameter(f"no authorisation {number} is in force", param_hint="NUMBER")
    say(f"authorisation {number}: revoked")
