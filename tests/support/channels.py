"""Channels from settings as a test writes them: through the reader of the configuration file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alerts.channels.channel import Channel
from alerts.channels.registry import build_channel
from alerts.channels.settings import read_channel
from settings.document import read_yaml


def channel_of(name: str, settings: Mapping[str, Any], base: Path = Path()) -> Channel:
    """The channel that a configuration file with these settings gives. Raises `Misplaced`."""
    return build_channel(read_channel(name, read_yaml(json.dumps(settings)), base), base=base)
