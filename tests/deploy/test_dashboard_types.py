"""Grafana's own types take the dashboard whole: no key is unknown to them, and each value has its declared type."""

import json
import typing
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel
from pydantic import ConfigDict, TypeAdapter, ValidationError

from tests.docs.blocks import ROOT

_CONFIG = ConfigDict(arbitrary_types_allowed=True, strict=True)


def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "signwatch.json").read_text(encoding="utf-8"))
    return loaded


def check_types(value: object) -> None:
    """Hold each attribute of each of Grafana's objects to its declaration. Raises `ValidationError`."""
    if isinstance(value, list):
        for each in value:
            check_types(each)
    elif type(value).__module__.startswith("grafana_foundation_sdk.models") and hasattr(value, "__dict__"):
        for name, declared in typing.get_type_hints(type(value)).items():
            held = getattr(value, name)
            adapter: TypeAdapter[Any] = TypeAdapter(declared, config=_CONFIG)
            if isinstance(held, str | int | float | None):
                # As JSON: a value of an enumeration stays the text or number that it is there.
                adapter.validate_json(json.dumps(held), strict=True)
            else:
                adapter.validate_python(held, strict=True)
            check_types(held)


def check(dashboard: dict[str, Any]) -> None:
    """Raise unless Grafana's types take the dashboard and give it back."""
    register_default_plugins()
    read = Dashboard.from_json(dashboard)
    check_types(read)
    written = json.loads(JSONEncoder().encode(read))
    assert missing(dashboard, written) == []


def missing(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Paths whose value in `theirs` is another one or absent. Defaults that Grafana adds are none of them."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [lost for key in ours for lost in missing(ours[key], theirs.get(key, "nothing at all"), f"{path}/{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [lost for at, (our, their) in pairs for lost in missing(our, their, f"{path}/{at}")]
    return [] if ours == theirs else [path]


def test_grafana_takes_the_dashboard_whole() -> None:
    check(document())


def panel(dashboard: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in dashboard["panels"] if each["type"] == kind)
    return found


WRONG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an unknown key": lambda made: made.update(refersh="1m"),
    "a number that is a text": lambda made: panel(made, "stat")["gridPos"].update(x="0"),
    "an unknown key of a panel": lambda made: panel(made, "stat").update(descripton="x"),
    "an unknown option of a panel": lambda made: panel(made, "stat")["options"].update(colourMode="background"),
    "a value that no enumeration has": lambda made: panel(made, "stat")["options"].update(colorMode="loud"),
    "an unknown key of a query": lambda made: panel(made, "stat")["targets"][0].update(legend="x"),
    "a query that is no text": lambda made: panel(made, "timeseries")["targets"][0].update(expr=["up"]),
    "an unknown mode of thresholds": lambda made: panel(made, "stat")["fieldConfig"]["defaults"]["thresholds"].update(
        mode="relativ"
    ),
    "a variable that refreshes at no known time": lambda made: made["templating"]["list"][1].update(refresh=9),
    "an object where a list is": lambda made: made["templating"].update(list={}),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_control_a_dashboard_that_grafana_would_misread_is_refused(spoil: Callable[[dict[str, Any]], Any]) -> None:
    wrong = deepcopy(document())
    spoil(wrong)
    with pytest.raises((AssertionError, ValidationError, TypeError, ValueError)):
        check(wrong)


def test_panels_options_and_queries_are_read_as_their_own_types() -> None:
    """Control: without the registered panel types an option would be any JSON."""
    register_default_plugins()
    shown = [each for each in Dashboard.from_json(document()).panels or () if isinstance(each, Panel)]
    assert {type(each.options).__module__.rpartition(".")[2] for each in shown} == {"stat", "timeseries"}
    assert {type(each).__module__.rpartition(".")[2] for one in shown for each in one.targets or ()} == {"prometheus"}
