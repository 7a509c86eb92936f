"""Published contracts of services that cannot run here, and requests to be held against them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from werkzeug import Request

_FOLDER = Path(__file__).parents[1] / "alerts" / "contracts"


def contract(name: str) -> Draft202012Validator:
    """The contract `tests/alerts/contracts/NAME.json`; its `$comment` names the published source."""
    schema = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def asked(request: Request) -> dict[str, Any]:
    """A request as a contract describes it: method, path, query, headers in lower case, size and body."""
    data = request.get_data()
    return {
        "method": request.method,
        "path": request.path,
        "query": request.args.to_dict(),
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "size": len(data),
        **({"body": json.loads(data)} if data else {}),
    }


GITHUB_ISSUES = contract("github-issues")
PAGERDUTY_EVENTS = contract("pagerduty-events-v2")
SLACK_MESSAGES = contract("slack-messages")
_OF_PATH = {
    "/repos/acme/widget/issues": GITHUB_ISSUES,
    "/v2/enqueue": PAGERDUTY_EVENTS,
    "/services/T/B/x": SLACK_MESSAGES,
    "/api/chat.postMessage": SLACK_MESSAGES,
}


def keep_their_contracts(requests: Iterable[Request]) -> int:
    """Hold each request to a service that has a contract against it; the number of them. Raises `ValidationError`."""
    held = [
        (validator, request)
        for request in requests
        for path, validator in _OF_PATH.items()
        if request.path == path or request.path.startswith(f"{path}/")
    ]
    for validator, request in held:
        validator.validate(asked(request))
    return len(held)
