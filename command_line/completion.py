"""`--install-completion` and `--show-completion`: typer's implementation, with two defects fixed.

Typer's zsh function completes nothing at the first TAB of a session, because the first call only loads the function.
For an unknown shell typer exits with 1, which is the exit code for a misbehaving log here.
"""

import sys
from typing import Any, Final

import shellingham
import typer
from typer.completion import get_completion_script, install  # type: ignore[attr-defined]

_SHELLS: Final = ("bash", "zsh", "fish")


def mend_completion(command: Any) -> None:
    """Replace the callbacks of a command's two completion options with fixed ones."""
    for parameter in command.params:
        if parameter.name in {"install_completion", "show_completion"}:
            # A variable for them has no use, and its name is wider than a column of a narrow window.
            parameter.show_envvar = False
        if parameter.name == "install_completion":
            parameter.callback = _install
        elif parameter.name == "show_completion":
            parameter.callback = _show


def _install(context: Any, parameter: Any, wanted: Any) -> None:
    if not wanted or context.resilient_parsing:
        return
    name = context.find_root().info_name
    shell, path = install(_shell(parameter), name, _variable(name))
    if shell == "zsh":
        path.write_text(_mended(shell, name, path.read_text(encoding="utf-8")), encoding="utf-8")
    typer.echo(f"{shell} completion installed in {path}. It takes effect in new terminals.")
    sys.exit(0)


def _show(context: Any, parameter: Any, wanted: Any) -> None:
    if not wanted or context.resilient_parsing:
        return
    name, shell = context.find_root().info_name, _shell(parameter)
    script = get_completion_script(prog_name=name, complete_var=_variable(name), shell=shell)
    typer.echo(_mended(shell, name, script))
    sys.exit(0)


def _variable(name: str) -> str:
    return f"_{name.replace('-', '_').upper()}_COMPLETE"


def _shell(parameter: Any) -> str:
    try:
        shell = str(shellingham.detect_shell()[0])
    except shellingham.ShellDetectionFailure:
        shell = "no shell that is known"
    if shell not in _SHELLS:
        raise typer.BadParameter(
            f"this was started by {shell}; completion is for {', '.join(_SHELLS)}: run it from one of them",
            param_hint=parameter.opts[0],
        )
    return shell


def _mended(shell: str, name: str, script: str) -> str:
    # zsh loads the file by calling it as the function `_NAME`: that first call has to complete as well.
    function = f"_{name.replace('-', '_')}_completion"
    return script + (f'\n\nif [ "$funcstack[1]" = "_{name}" ]; then {function} "$@"; fi\n' if shell == "zsh" else "")
