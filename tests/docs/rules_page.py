"""Writes docs/alert-rules.md from the rules for Prometheus: `python -m tests.docs.rules_page > docs/alert-rules.md`."""

import sys
from collections.abc import Iterator

import yaml

from tests.docs.blocks import ROOT

_OPENING = """\
# Alert rules for Prometheus

The runbook of `docker/prometheus/signwatch.rules.yml`: for each rule the consequence and the action. `owner` says whose
trouble it is: `log-misbehaved` (page now), `could-not-ask` (an outage), `ourselves` (this installation) or `signing`.
"""


def page() -> str:
    """The whole page."""
    return _OPENING + "".join(_sections())


def _sections() -> Iterator[str]:
    document = yaml.safe_load((ROOT / "docker/prometheus/signwatch.rules.yml").read_text(encoding="utf-8"))
    for rule in (rule for group in document["groups"] for rule in group["rules"]):
        labels, told = rule["labels"], rule["annotations"]
        waits = f", when it lasts for {rule['for']}" if "for" in rule else ", at once"
        yield f"\n## {rule['alert']}\n\n`{labels['severity']}`, owner `{labels['owner']}`{waits}.\n\n"
        yield f"```promql\n{rule['expr'].strip()}\n```\n\n"
        yield f"- **Consequence.** {told['consequence']}\n- **What to do.** {told['action']}\n"


if __name__ == "__main__":
    sys.stdout.write(page())
