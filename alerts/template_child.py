"""The process for a user's template: reads one job from standard input, writes one JSON answer."""

import json
import resource
import sys
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import escape


def _limit(job: dict[str, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (job["cpu_seconds"], job["cpu_seconds"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value)


def render(job: dict[str, Any]) -> str:
    """The page of one job. Raises `ValueError` when it grows past `max_output` characters."""
    page = _escaped(job["page"]) if job["html"] else job["page"]
    environment = ImmutableSandboxedEnvironment(autoescape=job["html"], undefined=StrictUndefined)
    pieces, length = [], 0
    for piece in environment.from_string(job["source"]).generate(page=page):
        length += len(piece)
        if length > job["max_output"]:
            raise ValueError(f"its output is longer than {job['max_output']} characters")
        pieces.append(piece)
    return "".join(pieces)


def main() -> None:
    """Answer the one job on standard input."""
    job = json.load(sys.stdin)
    _limit(job)
    try:
        answer = {"page": render(job)}
    except (
        TemplateError,
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        answer = {"failed": f"{type(error).__name__}: {error}"}
    except MemoryError:
        answer = {"failed": "it used too much memory"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
