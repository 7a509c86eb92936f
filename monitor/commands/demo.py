"""`signwatch demo`: the whole loop on this machine, checked act by act."""

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from monitor.demo.mailbox import mailbox
from monitor.demo.processes import DemoFailed, program, programs
from monitor.demo.story import Story, show

_FINE: Final = 0
_COULD_NOT_FINISH: Final = 3


def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Folder for keys, databases and logs; a temporary folder by default.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave all servers running afterwards, until Ctrl-C.")] = False,
) -> None:
    """Sign as expected, subscribe, sign as a stranger, fork the log: see exactly what Signwatch reports for each.

    Starts ca-lite, log-lite and the daemon as real processes on free loopback ports. Nothing leaves this machine.

    Examples:
      signwatch demo
      signwatch demo --keep --dir ./loop
    """
    console = Console(highlight=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    with _folder(directory, keep=keep) as folder:
        try:
            with mailbox(folder / "mailbox") as mails, programs(folder) as running:
                story = show(folder, console, running, mails, keep=keep)
                console.print()
                console.print("Both caught: one unexpected signing, one lying log. No false alarm.", style="bold green")
                if keep:
                    _stay_up(story, console)
        except DemoFailed as error:
            console.print(f"\n[bold red]The demonstration failed:[/] {error}", markup=True)
            console.print(f"Every program's output is in {folder / 'logs'}")
            raise typer.Exit(_COULD_NOT_FINISH) from error
    raise typer.Exit(_FINE)


def _end(_number: int, _frame: Any) -> None:
    """End as on Ctrl-C: otherwise a kill or a closed terminal would leave the programs running."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def _folder(chosen: Path | None, *, keep: bool) -> Iterator[Path]:
    """The folder to work in. A temporary one goes away after a success and stays after a failure."""
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        if any(chosen.iterdir()):
            raise typer.BadParameter(
                f"{chosen} is not empty: the demonstration starts from nothing", param_hint="--dir"
            )
        yield chosen.resolve()
        return
    temporary = Path(tempfile.mkdtemp(prefix="signwatch-demo-"))
    yield temporary
    if not keep:
        shutil.rmtree(temporary)


def _stay_up(story: Story, console: Console) -> None:
    console.print("\nEverything is up. Sign with your own client:\n", style="bold")
    # No frame and no folding: these lines are there to be copied.
    console.print(commands(story), soft_wrap=True, markup=False)
    place = f"\nThe site for subscribers: {story.site_url} (its mails are in {story.folder / 'mailbox'})"
    console.print(place, soft_wrap=True, markup=False)
    console.print("\nCtrl-C stops it all.")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
            story.programs.check_alive()


def commands(story: Story) -> str:
    """The exact commands that sign against this loop, one block per client."""
    trust = story.folder / "ca" / "trust"
    token = f"{program('ca-lite')} token --dir {story.folder / 'ca'} --email you@example.com"
    tuf = f"--tuf-mirror-url {story.ca_url}/tuf --tuf-root-path {story.folder / 'ca' / 'tuf' / '1.root.json'}"
    mine = f"--certificate-identity you@example.com --certificate-oidc-issuer {story.ca_url}/oidc"
    return f"""\
echo hello > hello.txt
TOKEN=$({token})

# sigstore (PyPI)
sigstore --trust-config {trust}/client_trust_config.json sign --identity-token "$TOKEN" --bundle hello.json hello.txt
sigstore --trust-config {trust}/client_trust_config.json verify identity --bundle hello.json \\
  --cert-identity you@example.com --cert-oidc-issuer {story.ca_url}/oidc hello.txt

# npm sigstore
npm install @sigstore/cli
CI=true SIGSTORE_ID_TOKEN="$TOKEN" npx sigstore attest hello.txt -t text/plain -o hello.npm.json \\
  --fulcio-url {story.ca_url} --rekor-url {story.log_url}
npx sigstore verify hello.npm.json {tuf} \\
  --certificate-identity-email you@example.com --certificate-issuer {story.ca_url}/oidc

# cosign
cosign sign-blob hello.txt --yes --identity-token "$TOKEN" --bundle hello.cosign.json \\
  --signing-config {trust}/signing_config.json --trusted-root {trust}/trusted_root.json
cosign verify-blob hello.txt --bundle hello.cosign.json --trusted-root {trust}/trusted_root.json \\
  {mine}

# what Signwatch saw
curl -s {story.web_url}/api/status.json
{program("signwatch")} status --config {story.folder / "signwatch.yaml"}"""
