"""`signwatch config`: what a configuration may say."""

import typer

from monitor.config import config_schema
from settings.models import schema_text


def schema() -> None:
    """Print the JSON Schema of the configuration, for editors and for checks before a deployment.

    Exits with 0. `signwatch doctor` reads the file itself, and says more.

    Examples:
      signwatch config schema > signwatch.schema.json
    """
    typer.echo(schema_text(config_schema()), nl=False)
