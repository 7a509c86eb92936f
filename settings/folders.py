"""Replaces variables for folders, of a service manager or the XDG Base Directory Specification, in a file's values."""

import re
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from settings.document import Misplaced, Node, YamlMapping, YamlSequence

FOLDERS: Final = (
    "CREDENTIALS_DIRECTORY",
    "STATE_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "CACHE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
)
_XDG_DEFAULTS: Final = {
    "XDG_CONFIG_HOME": "~/.config",
    "XDG_STATE_HOME": "~/.local/state",
    "XDG_CACHE_HOME": "~/.cache",
    "XDG_DATA_HOME": "~/.local/share",
}
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}(?=/|$)", re.ASCII)


def expanded(node: Node, environment: Mapping[str, str]) -> Node:
    """The node with `${NAME}` at the start of each value replaced by that folder. Raises `Misplaced`."""
    if isinstance(node, YamlMapping):
        return replace(node, entries=tuple((key, expanded(value, environment)) for key, value in node.entries))
    if isinstance(node, YamlSequence):
        return replace(node, items=tuple(expanded(each, environment) for each in node.items))
    if (found := _VARIABLE.match(node.text)) is None:
        return node
    name = found[1]
    if name not in FOLDERS:
        raise Misplaced(f"${{{name}}} is not a folder that can be named here; these can: {', '.join(FOLDERS)}", node)
    folder = environment.get(name) or _XDG_DEFAULTS.get(name, "")
    if folder.startswith("~/"):
        folder = f"{environment['HOME']}{folder[1:]}" if environment.get("HOME") else ""
    if not folder.startswith("/") or ":" in folder:
        raise Misplaced(
            f"${{{name}}} is {folder[:200] or 'not set'}: it must be one absolute path. systemd sets it for a service "
            "whose unit asks for it",
            node,
        )
    return replace(node, text=folder + node.text[found.end() :])
