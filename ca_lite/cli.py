"""The `ca-lite` command. Exit codes: 0 fine, 1 a token is refused, 2 wrong usage or configuration, 3 outage."""

import logging
import sys

import typer

from command_line.log_format import Text
from command_line.program import LazyCommand, ToStandardError, VersionOption, group, listing, run

app = typer.Typer(
    cls=listing(
        LazyCommand("init", "ca_lite.commands.directories:init", "Make keys, certificates and trust files."),
        LazyCommand("serve", "ca_lite.commands.serving:serve_command", "Serve certificates, tokens, timestamps."),
        LazyCommand("token", "ca_lite.commands.tokens:token", "Print an identity token, valid for ten minutes."),
        LazyCommand(
            "explain-token", "ca_lite.commands.explaining:explain_command", "Say what the CA makes of a token."
        ),
        LazyCommand("trust", "ca_lite.commands.directories:trust", "Write the trust files again."),
        LazyCommand("rotate-oidc", "ca_lite.commands.directories:rotate_oidc", "Make a new token-signing key."),
        LazyCommand("connect", "ca_lite.commands.connecting:connect", "Believe a company's issuer, and sign in there."),
        group(
            "users",
            "People who may sign in at the CA's own issuer.",
            LazyCommand("add", "ca_lite.commands.users:add", "Add a person who may sign in with a password."),
            LazyCommand("list", "ca_lite.commands.users:list_users", "List the people."),
            LazyCommand("password", "ca_lite.commands.users:password", "Set a person's new password."),
            LazyCommand("disable", "ca_lite.commands.users:disable", "Let a person sign in no more."),
            LazyCommand("enable", "ca_lite.commands.users:enable", "Let a disabled person sign in again."),
            LazyCommand("remove", "ca_lite.commands.users:remove", "Remove a person."),
        ),
        LazyCommand("lint", "ca_lite.commands.issuers:lint", "Check an issuer configuration."),
        LazyCommand("issued", "ca_lite.commands.issuances:issued", "List certificates from the issuance journal."),
    ),
    help="A Fulcio-compatible certificate authority with its own OIDC issuer and timestamp authority.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(*, _version: VersionOption = False) -> None:
    """Options of the program itself."""


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, handlers=[ToStandardError(Text("ca-lite: %(message)s"))])
    sys.exit(run(app, "ca-lite", sys.argv[1:]))
