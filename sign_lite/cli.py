"""The `sign-lite` command.

Exit codes: 0 fine, 1 verification failed, 2 wrong usage or configuration, 3 a service refused or did not answer.
"""

import logging
import sys
from typing import Final

import typer

from command_line.log_format import Text
from command_line.program import LazyCommand, ToStandardError, VersionOption, group, listing, only_misuse, run

_MISUSED: Final = 2
_OURS: Final = ("sign_lite", "sigstore_entries", "command_line", "addresses", "outbound", "tlog")
app = typer.Typer(
    cls=listing(
        LazyCommand("sign", "sign_lite.commands:sign", "Sign files; writes FILE.sigstore.json beside each."),
        LazyCommand("attest", "sign_lite.commands:attest", "Sign one in-toto statement about all the files."),
        LazyCommand("verify", "sign_lite.commands:verify_command", "Verify files against their bundles."),
        group(
            "image",
            "Sign, verify and attest container images, as cosign does.",
            LazyCommand("sign", "sign_lite.image:sign_image", "Sign an image; the bundle goes into its registry."),
            LazyCommand("attest", "sign_lite.image:attest_image", "Sign an in-toto statement about an image."),
            LazyCommand("verify", "sign_lite.image:verify_image", "Verify what an image's registry holds."),
        ),
        LazyCommand("initialize", "sign_lite.commands:initialize", "Trust a deployment's TUF repository from now on."),
        LazyCommand("git", "sign_lite.git:git", "Sign and verify commits and tags, as git's gpg.x509.program."),
        group(
            "conformance",
            "Sign and verify as the public sigstore-conformance suite asks a client to.",
            LazyCommand("sign-bundle", "sign_lite.conformance:sign_bundle", "Sign a file or an in-toto statement."),
            LazyCommand("verify-bundle", "sign_lite.conformance:verify_bundle", "Verify a file or a digest."),
        ),
    ),
    help="Sign, verify and attest files with standard Sigstore bundles.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(*, _version: VersionOption = False) -> None:
    """Options of the program itself."""


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, handlers=[ToStandardError(Text("sign-lite: %(message)s"))])
    sys.exit(run(app, "sign-lite", sys.argv[1:], _tell))


def main_git() -> None:
    """Run `sign-lite git`: git calls its signing program without a subcommand."""
    logging.basicConfig(level=logging.WARNING, handlers=[ToStandardError(Text("sign-lite: %(message)s"))])
    sys.exit(run(app, "sign-lite", ["git", *sys.argv[1:]], _tell))


def _tell(error: Exception) -> int | None:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in _OURS:
        sys.stderr.write(
            f"sign-lite: {error.name} is not installed: sign-lite needs the `sign` extra of signwatch. "
            "docs/operations.md says how to install it.\n"
        )
        return _MISUSED
    return only_misuse(error)
