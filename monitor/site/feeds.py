"""The Atom feed of an account's unexpected signings (RFC 4287)."""

from datetime import datetime
from itertools import islice
from typing import Final
from xml.etree import ElementTree as ET

from monitor.site.parts import Site
from monitor.site.rendering import inert, plain
from monitor.site.subscription_view import every_row
from rules.rule import Outcome

_NAMESPACE: Final = "http://www.w3.org/2005/Atom"
_SHOWN: Final = 100


def feed(site: Site, subscriber: str, identifier: str) -> bytes:
    """Newest unexpected signings of all subscriptions, as a feed that a reader may fetch without signing in."""
    ET.register_namespace("", _NAMESPACE)
    root = ET.Element(f"{{{_NAMESPACE}}}feed")
    rows = [
        (each, row)
        for each in site.subscribers.subscriptions(subscriber)
        for row in islice(every_row(site, each, outcome=Outcome.UNEXPECTED.value), _SHOWN + 1)
    ]
    rows.sort(key=lambda pair: pair[1].at, reverse=True)
    updated = rows[0][1].at if rows else site.clock()
    _put(root, "id", f"urn:signwatch:feed:{identifier}")
    _put(root, "title", "Signings you did not expect")
    if len(rows) > _SHOWN:
        _put(
            root, "subtitle", f"The newest {_SHOWN}; older ones are on the page of each subscription and in its exports"
        )
    _put(root, "updated", _time(updated))
    _link(root, site.config.public_url)
    author = ET.SubElement(root, f"{{{_NAMESPACE}}}author")
    _put(author, "name", "Signwatch")
    for each, row in rows[:_SHOWN]:
        entry = ET.SubElement(root, f"{{{_NAMESPACE}}}entry")
        _put(entry, "id", f"urn:signwatch:{each.id}:{row.log}:{row.index}")
        _put(entry, "title", f"{each.title}: {row.what}")
        _put(entry, "updated", _time(row.at))
        _link(entry, site.url(f"/subscriptions/{each.id}"))
        why = "; ".join(f"{what}: {found} (expected {expected})" for what, expected, found in row.why)
        _put(entry, "summary", f"{why}. {row.log}, entry {row.index}")
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _put(parent: ET.Element, name: str, text: str) -> None:
    # XML holds no control characters, escaped or not; `inert` writes each as a visible escape.
    ET.SubElement(parent, f"{{{_NAMESPACE}}}{name}").text = inert(text, 1_000)


def _link(parent: ET.Element, url: str) -> None:
    ET.SubElement(parent, f"{{{_NAMESPACE}}}link").set("href", url)


def _time(at: datetime) -> str:
    return str(plain(at))
