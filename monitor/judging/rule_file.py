"""The operator's rule file, read for a command."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from monitor.model.errors import BadConfig
from rules.rule import RuleSet
from rules.rule_file import load_rules
from settings.document import MAX_BYTES, DocumentError

_SHOWN: Final = 20


def read_rules(path: Path, channels: Collection[str] | None = None) -> RuleSet:
    """Read a rule file, and check the channels it names where they are known. Raises `BadConfig`."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadConfig(f"{path}: a rule file of more than {MAX_BYTES // 2**20} MiB is not read")
        rules = load_rules(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(
            f"{path}: the rules cannot be read: {error}. Without rules no signing is judged: run `signwatch init`, or "
            "name the right file under `rules`."
        ) from error
    except DocumentError as error:
        told = str(error).splitlines()
        more = [f"… and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
        raise BadConfig("\n".join([*told[:_SHOWN], *more, "No rule of this file is in force."])) from error
    known = None if channels is None else frozenset(channels)
    for rule in rules.rules if known is not None else ():
        for channel in rule.notify:
            if known is not None and channel not in known:
                raise BadConfig(
                    f"{path}:{rule.line}: rule {rule.id} notifies {channel!r}, which is not under `channels`. Its "
                    "alerts would reach no person: add the channel or name another one."
                )
    return rules
