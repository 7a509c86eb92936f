"""The files that `signwatch init` writes, with a comment on every choice."""

from pathlib import Path
from typing import Final

from rules.rule_file import scalar

_CONFIG: Final = """\
# Signwatch's configuration. Every key: docs/configuration.md. Relative paths count from this file's folder.
version: 1

# This file holds all proven positions and findings: back it up. Or postgresql://user@host/name for several replicas.
database: signwatch.db

# Source of the logs' keys and of the certificate authorities.
trust:
%(trust)s

# Leave this out to follow every log of the trust root.
# logs:
#   - {name: rekor-v2, api: rekor-v2, url: "https://log.example", start: head, poll_seconds: 30}

# The rule file: which signings to watch, and which to expect.
rules: rules.yaml

# Channels for alerts. Secrets stay in files of their own.
channels:
  console: {type: stdout}
  # file: {type: jsonl, path: alerts.jsonl}
  # hook: {type: webhook, url: "https://hooks.example/signwatch", secret_file: hook.secret}
  # slack: {type: slack, webhook_url_file: slack.url}
  # mail: {type: email, host: mail.example, from: signwatch@example.com, to: [team@example.com]}

# Channels for alerts about logs and about Signwatch itself, and for rules that name no channel.
notify: [console]

# Status page, Prometheus metrics, health and readiness.
web: {listen: "127.0.0.1:9464"}

# Limits of a healthy installation.
# objectives: {poll_seconds: 30, stale_after_seconds: 3600, gap_entries: 10000, delivery_age: 15m}

# Older entries that are offered to a new rule: none, followed, all, or a number of entries.
# backscan: {range: followed, entries_per_second: 1000}
"""

_TUF: Final = "  tuf: {tuf}                    # or: staging, or the URL of a private TUF repository"
_TUF_ROOT: Final = "  tuf_root: {root}   # its first root metadata, got from its operator"
_NO_FILE: Final = "  # trusted_root: trusted_root.json   # instead of tuf, for a private deployment"
_FILE: Final = "  trusted_root: {file}   # read again every hour; a change is in force at once and makes an alert"
_NO_TUF: Final = (
    "  # tuf: public-good                  # instead of the file: public-good, staging, or a URL with tuf_root"
)


def config_text(tuf: str | None = None, *, tuf_root: Path | None = None, trusted_root: Path | None = None) -> str:
    """Text of a first configuration whose keys come from a TUF repository, by default the public one, or a file."""
    if trusted_root is not None:
        trust = [_FILE.format(file=scalar(str(trusted_root))), _NO_TUF]
    else:
        trust = [_TUF.format(tuf=scalar(tuf or "public-good")), _NO_FILE]
        trust[1:1] = [_TUF_ROOT.format(root=scalar(str(tuf_root)))] if tuf_root is not None else []
    return _CONFIG % {"trust": "\n".join(trust)}


CONFIG: Final = config_text()

RULES: Final = """\
# The signings that Signwatch watches, and the form of a legitimate one: docs/rules.md.
# `signwatch rules init https://github.com/acme/widget` prints a rule for a repository, or for an e-mail address.
version: 1
rules:
  - id: example-release
    title: Example's release workflow
    select:
      identity: {glob: "https://github.com/example/widget/.github/workflows/*"}
      issuer: "https://token.actions.githubusercontent.com"
    expect:
      workflow: ".github/workflows/release.yml"
      ref: {glob: "refs/tags/v*"}
      trigger: [push]
    severity: page
"""
