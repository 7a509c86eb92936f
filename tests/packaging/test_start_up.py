"""A command imports what it uses: names of packages are compared, not times.

`python -c "import …"` of one server or database library costs more than everything that `--version` does.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from monitor.cli import run_command
from tests.docs.commands_page import PROGRAMS
from tests.support.served_log import ServedLog, served_log

# Runs a program as its script does; writes what was imported since to the file named first.
_RUNNER = """
import sys
before = set(sys.modules)  # `None` there says that a module is not to be imported
import importlib, json
into, module, *sys.argv = sys.argv[1:]
try:
    importlib.import_module(module).main()
finally:
    names = [name for name, module in sys.modules.items() if module and name not in before]
    with open(into, "w") as file:
        json.dump(sorted(names), file)
"""
_MODULES = {
    "signwatch": "monitor.cli",
    "ca-lite": "ca_lite.cli",
    "log-lite": "log_lite.cli",
    "sign-lite": "sign_lite.cli",
}
TYPER = {"typer", "shellingham", "annotated_doc"}
# Records are its structs: a class is made in a thirtieth of a dataclass's time. It reads annotations with the other.
RECORDS = {"msgspec", "typing_extensions"}
# How log lines look is part of every program.
LINES = {"command_line", "addresses"}
# typer reads the values of options with it.
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions"}
CRYPTOGRAPHY = {"cryptography", "_cffi_backend", "_openssl"}
ENTRIES = {
    "msgspec",
    "rfc8785",
    "pybase64",
    "addresses",
    "alerts",
    "command_line",
    "monitor",
    "sigstore_entries",
    "tlog",
}
RULES = {"yaml", "re2", "ahocorasick_rs", "cython_runtime", "rules", "settings"}
LIGHT = TYPER | PYDANTIC | CRYPTOGRAPHY | ENTRIES | RULES
DATABASE = {"sqlalchemy", "sqlmodel", "sqlite3", "asyncio", "ssl"}  # SQLAlchemy imports asyncio, and that ssl
HTTP = {"httpx", "httpcore", "h11", "anyio", "certifi", "idna", "http", "outbound"}
# The readers of certificates and of OpenSSH's keys: more than the rest of `cryptography` together.
CERTIFICATES = {"cryptography.x509", "cryptography.hazmat.primitives.serialization.ssh"}
# Tables of the subscribers' site, which most monitors do not have.
SITE = {"monitor.store.site_tables"}
# Parts of the standard library that serve, ask or store.
HEAVY = {"asyncio", "http", "sqlite3", "ssl", "multiprocessing", "smtplib", "socketserver", "xml"}


def imported(tmp_path: Path, name: str, *words: str, code: int = 0) -> set[str]:
    """Packages that a command imports: ours, those of others, the heavy ones of the standard library; heavy parts."""
    into = tmp_path / "imported.json"
    command = [sys.executable, "-c", _RUNNER, str(into), _MODULES[name], name, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    names = json.loads(into.read_text())
    packages = {each.partition(".")[0] for each in names if not each.startswith(("_sysconfigdata", "_cython", "__mp_"))}
    return {each for each in packages if each not in sys.stdlib_module_names or each in HEAVY} | (
        (CERTIFICATES | SITE).intersection(names)
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_version_and_help_import_no_server_database_or_http_library(name: str, tmp_path: Path) -> None:
    own = {_MODULES[name].partition(".")[0], "command_line", "addresses"} | (
        {"alerts"} if name == "signwatch" else set()
    )
    assert imported(tmp_path, name, "--version") <= TYPER | RECORDS | own
    assert imported(tmp_path, name, "--help") <= TYPER | RECORDS | own


@pytest.mark.parametrize("words", [("rules", "--help"), ("evidence", "--help"), ("stauts",)])
def test_nor_do_the_help_of_a_group_and_a_mistyped_command(words: Sequence[str], tmp_path: Path) -> None:
    code = 0 if "--help" in words else 2
    assert imported(tmp_path, "signwatch", *words, code=code) <= TYPER | PYDANTIC | RECORDS | {
        "monitor",
        "command_line",
        "alerts",
        "addresses",
    }


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedLog]:
    """A log that answers, followed from its start."""
    with served_log(tmp_path_factory.mktemp("followed")) as served:
        for word in ("init", "audit"):
            assert run_command([word, "--config", str(served.config)]) == 0
        yield served


COMMANDS = {
    ("rules", "lint"): LIGHT - CRYPTOGRAPHY - {"pybase64", "rfc8785"},
    ("rules", "init", "https://github.com/acme/widget"): LIGHT | CERTIFICATES,
    ("status",): LIGHT | CERTIFICATES | DATABASE,
    ("evidence", "list"): LIGHT | CERTIFICATES | DATABASE,
    ("alerts", "list"): LIGHT | CERTIFICATES | DATABASE,
    ("alerts", "list", "--json"): LIGHT | CERTIFICATES | DATABASE,
    ("alerts", "silences"): LIGHT | CERTIFICATES | DATABASE,
    ("config", "check"): LIGHT | CERTIFICATES | DATABASE | {"outbound"},
    ("doctor",): LIGHT | CERTIFICATES | DATABASE | {"outbound"},
    ("audit",): LIGHT | CERTIFICATES | DATABASE | HTTP,
    ("run", "--once"): LIGHT | CERTIFICATES | DATABASE | HTTP,
    ("scan", "--log", "rekor-v2", "--from", "0", "--to", "1"): LIGHT | CERTIFICATES | DATABASE | HTTP,
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_imports_what_it_uses(words: Sequence[str], followed: ServedLog, tmp_path: Path) -> None:
    config = () if words[:2] == ("rules", "init") else ("--config", str(followed.config))
    assert imported(tmp_path, "signwatch", *words, *config) <= COMMANDS[tuple(words)]


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)


def test_status_imports_the_http_client_only_where_a_daemon_listens(followed: ServedLog, tmp_path: Path) -> None:
    status = ("status", "--config", str(followed.config))
    with HTTPServer(("127.0.0.1", 0), _Empty) as server:
        followed.write_files(server.server_port)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert "httpx" in imported(tmp_path, "signwatch", *status)
        finally:
            server.shutdown()
    try:
        assert "httpx" not in imported(tmp_path, "signwatch", *status)
    finally:
        followed.write_files()


def test_no_plugin_of_pydantic_is_looked_for(followed: ServedLog, tmp_path: Path) -> None:
    """Pydantic would open a file of every installed package, and import the module that one of them names."""
    (tmp_path / "plugin_of_pydantic.py").write_text("plugin = None")
    (tmp_path / "plugin-1.0.dist-info").mkdir()
    (tmp_path / "plugin-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (tmp_path / "plugin-1.0.dist-info" / "entry_points.txt").write_text("[pydantic]\nit = plugin_of_pydantic:plugin\n")
    words = ("status", "--config", str(followed.config))
    assert "plugin_of_pydantic" not in imported(tmp_path, "signwatch", *words)


def test_checking_evidence_needs_no_rules_no_database_and_no_http_client(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("{}")
    assert imported(tmp_path, "signwatch", "evidence", "verify", "none.json", code=1) <= LIGHT - RULES


def in_new_process(code: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_daemon_without_visitors_imports_no_template_engine_and_no_mail_parser() -> None:
    code = """
import sys
import monitor.commands.serving
print(*sys.modules)
"""
    modules = set(in_new_process(code).split())
    assert "fastapi" in modules
    assert not modules & {"jinja2", "markdown_it", "limits", "pyarrow", "email.headerregistry", "monitor.site.app"}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has pools of memory for each thread")
def test_threads_of_the_daemon_share_one_pool_of_memory(tmp_path: Path) -> None:
    code = """
import ctypes, sys, threading
from monitor.commands.run import share_memory_of_threads
if "shared" in sys.argv:
    share_memory_of_threads()
kept, libc, at_once = [], ctypes.CDLL("libc.so.6"), threading.Barrier(6)
def allocate():
    at_once.wait(30)
    kept.extend(bytes(1000 + each) for each in range(500))
    at_once.wait(30)
threads = [threading.Thread(target=allocate) for _ in range(6)]
for each in threads: each.start()
for each in threads: each.join()
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""
    pools = {}
    for word in ("shared", "apart"):
        in_new_process(code, str(tmp_path / word), word)
        pools[word] = (tmp_path / word).read_text().count("<heap nr=")
    assert pools["shared"] == 1
    assert pools["apart"] > 1, "the comparison finds pools"


@pytest.mark.parametrize(
    "lacking", ["sys.modules['_ctypes'] = None", "ctypes.CDLL = open", "ctypes.CDLL = lambda name: object()"]
)
def test_a_daemon_starts_where_the_c_library_has_no_pools(lacking: str) -> None:
    """Python built without libffi; macOS, where the library has another name; and one without mallopt."""
    wanted = "" if "_ctypes" in lacking else "import ctypes; "
    code = f"import sys; from monitor.commands.run import share_memory_of_threads; {wanted}{lacking}; "
    assert in_new_process(code + "share_memory_of_threads(); print('started')") == "started\n"


def test_a_heavy_import_would_be_noticed(tmp_path: Path) -> None:
    assert imported(tmp_path, "log-lite", "serve", "--help") & {"fastapi", "uvicorn", "asyncio"}
