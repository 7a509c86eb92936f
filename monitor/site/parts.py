"""Objects that every part of the site shares, made once: store, key, limits, templates, past."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment
from msgspec import Struct

from monitor.site.limits import RateLimits
from monitor.site.lookup import NameHistory, SearchedNameHistory
from monitor.site.rendering import environment
from monitor.site.search_form import FormSearch
from monitor.site.sessions import RequestAuthenticator, SiteKeys, Visitor
from monitor.site_config import SiteConfig
from monitor.store.database import Database
from monitor.store.notices import Notices
from monitor.store.signings import FindingsHistory, ReadEntries
from monitor.store.sql import new_id
from monitor.store.subscribers import Subscribers, add_link, address_key

CONFIRM_FOR: Final = timedelta(hours=24)
SIGN_IN_FOR: Final = timedelta(minutes=15)


ProveEntry = Callable[[str, int, bytes, Mapping[str, Any]], dict[str, Any]]
"""Document that proves an entry to be in a log: log, index, the entry's bytes, description for people.

Raises `FetchFailed`, `OwnFault`.
"""


class Site(Struct, frozen=True):
    """The parts of one site. `past` answers look-ups; `found` holds the findings of each subscription.

    A site that asks no log has no `read_entries`, and one without an archive no `search`.
    """

    config: SiteConfig
    keys: SiteKeys
    database: Database
    subscribers: Subscribers
    notices: Notices
    past: NameHistory
    found: FindingsHistory
    limits: RateLimits
    door: RequestAuthenticator
    templates: Environment
    clock: Callable[[], datetime]
    prove: ProveEntry | None = None
    read_entries: ReadEntries | None = None
    search: FormSearch | None = None

    def page(self, request: Request, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """Render a page for a visitor, and give a new browser its cookie."""
        visitor: Visitor = request.state.visitor
        html = self.templates.get_template(f"{name}.html.j2").render(
            visitor=visitor, config=self.config, now=self.clock(), **values
        )
        answer = HTMLResponse(html, status_code=status)
        self.door.remember(answer, visitor)
        return answer

    def url(self, path: str) -> str:
        """A link for a mail: always under the configured address, never the request's."""
        return f"{self.config.public_url}{path}"

    def mail_link(
        self,
        purpose: str,
        address: str,
        visitor: Visitor,
        payload: Mapping[str, Any],
        lasts: timedelta,
        *,
        wanted: bool = True,
        letter: Mapping[str, Any] | None = None,
    ) -> None:
        """Queue a mail with a link. Unless `wanted`, the same rows are written and no mail is sent.

        The token is not stored: the letter holds a nonce, and the delivery makes the token from it.
        """
        now, nonce = self.clock(), new_id()
        allowed = self.limits.mail_to(address_key(address)) and wanted
        document = {"letter": purpose, "to": address, "nonce": nonce, **(letter or {})}
        with self.database.write() as connection:
            add_link(
                connection,
                self.keys.link_token(nonce),
                purpose=purpose,
                address=address,
                browser=visitor.browser,
                payload=payload,
                expires_at=now + lasts,
            )
            self.notices.put_letter(connection, f"letter:{nonce}", document, now, withdrawn=not allowed)


def build_site(
    config: SiteConfig, database: Database, clock: Callable[[], datetime], past: SearchedNameHistory | None = None
) -> Site:
    """Put a site together. Raises `OwnFault` when its key cannot be read."""
    keys = SiteKeys.read(config.key_file)
    subscribers = Subscribers(database, clock)
    found = FindingsHistory(database)
    return Site(
        config=config,
        keys=keys,
        database=database,
        subscribers=subscribers,
        notices=Notices(database),
        past=past or found,
        found=found,
        limits=RateLimits(config.limits, database, clock),
        door=RequestAuthenticator(config, keys, subscribers),
        templates=environment(),
        clock=clock,
        search=None if past is None else past.search(clock),
    )
