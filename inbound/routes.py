"""Methods that an application's routes answer at a path."""

from collections.abc import Iterable
from typing import Final

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

_METHODS: Final = ("DELETE", "GET", "PATCH", "POST", "PUT")


def methods_at(routes: Iterable[BaseRoute], scope: Scope) -> list[str]:
    """Methods that the routes answer at the path of a request, in order; empty if the path is unknown.

    Starlette names those of one route alone, and a router that is included in another does not show its routes.
    """
    asked = tuple(routes)
    return [
        method
        for method in _METHODS
        if any(each.matches({**scope, "method": method})[0] is Match.FULL for each in asked)
    ]
