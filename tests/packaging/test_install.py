"""The lock installs the same tomorrow: with every supported Python's pip, from an index that offers newer versions.

The index is a folder of wheels without code. They carry the names, versions and requirements of the locked packages,
and of a newer version of each; the lock files are the real ones with these wheels' hashes.
"""

import base64
import hashlib
import importlib.metadata
import os
import re
import shlex
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.pythons import ROOT, python, supported

LOCKS = ("run.txt", "extras.txt", "build.txt", "dev.txt")
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)( ;[^\\]*)? \\$", re.MULTILINE)
_INSTALLS = re.compile(r"""\bpip3?["']? (?:install|download)\b""")
_A_LOCK = re.compile(r"""-r ["']?(?:\$ACTION_PATH/)?requirements/|-r "\$\{locks\[""")
_OPTIONS = re.compile(r"pip install (.*?)(?:-r requirements/|$)")


@dataclass(frozen=True)
class Pinned:
    """One package of a lock file."""

    name: str
    version: str
    marker: str


def pinned(lock: str) -> list[Pinned]:
    text = (ROOT / "requirements" / lock).read_text()
    return [Pinned(canonicalize_name(name), version, marker.strip()) for name, version, marker in _PINNED.findall(text)]


def requires(name: str) -> list[str]:
    """Requirements as the installed package states them; none for one of another platform."""
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def newer(version: str) -> str:
    *head, last = re.match(r"[0-9.]+", version).group().strip(".").split(".")  # type: ignore[union-attr]
    return ".".join([*head, str(int(last) + 1)])


def make_wheel(folder: Path, name: str, version: str, needs: Sequence[str]) -> str:
    """Write a wheel without code; returns its SHA-256."""
    stem = f"{name.replace('-', '_')}-{version}"
    extras = sorted(set(re.findall(r"extra == ['\"]([A-Za-z0-9._-]+)['\"]", "\n".join(needs))))
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {need}" for need in needs]
    files = {
        f"{stem}.dist-info/METADATA": "\n".join(metadata) + "\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text)}\n"
        for path, text in files.items()
    )
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name_in, text in {**files, f"{stem}.dist-info/RECORD": f"{record}{stem}.dist-info/RECORD,,\n"}.items():
            wheel.writestr(name_in, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def project_needs() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"].items()
    return [*project["dependencies"], *(f'{need} ; extra == "{extra}"' for extra, needs in optional for need in needs)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`wheels/` with every locked package and a newer version of each; lock files with their hashes beside it."""
    folder = tmp_path_factory.mktemp("index")
    wheels = folder / "wheels"
    wheels.mkdir()
    hashes: dict[tuple[str, str], str] = {}
    for lock in LOCKS:
        lines = []
        for each in pinned(lock):
            key = each.name, each.version
            if key not in hashes:
                hashes[key] = make_wheel(wheels, each.name, each.version, requires(each.name))
                make_wheel(wheels, each.name, newer(each.version), requires(each.name))
            lines.append(f"{each.name}=={each.version} {each.marker} --hash=sha256:{hashes[key]}")
        (folder / lock).write_text("\n".join(lines) + "\n")
    make_wheel(wheels, "signwatch", "0.1.0", project_needs())
    return folder


def pip_of(version: str, which: str) -> Path:
    """The wheel of a pip: that of the Python itself, or the oldest one that a supported Python brought."""
    if which == "oldest":
        wheels = sorted((ROOT / ".pip-wheels").glob("pip-*.whl"))
        if not wheels:
            pytest.skip("the oldest pip is missing: .ci/fetch-old-pip fetches it")
        return wheels[0]
    script = "import ensurepip, pathlib; print(*(pathlib.Path(ensurepip.__file__).parent / '_bundled').glob('pip-*'))"
    done = subprocess.run([python(version), "-c", script], capture_output=True, text=True, timeout=60, check=True)
    if not done.stdout.strip():
        pytest.skip(f"Python {version} brings no pip")
    return Path(done.stdout.split()[0])


@dataclass(frozen=True)
class Environment:
    """An empty virtual environment, and the pip it is filled with from the folder of wheels."""

    folder: Path
    pip: Path
    wheels: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "bin" / "python"), "-m", "pip", *words],
            env={
                "PYTHONPATH": str(self.pip),
                "PIP_CONFIG_FILE": os.devnull,
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.wheels),
                "PIP_NO_CACHE_DIR": "1",
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "HOME": str(self.folder),
                "PATH": "/usr/bin:/bin",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def installed(self) -> dict[str, str]:
        done = self.run("freeze", "--all")
        assert done.returncode == 0, done.stderr
        return {
            canonicalize_name(name): version
            for name, version in re.findall(r"^(\S+)==(\S+)$", done.stdout, re.MULTILINE)
        }


def environment(folder: Path, interpreter: str, pip: Path, index: Path) -> Environment:
    subprocess.run(
        [interpreter, "-m", "venv", "--without-pip", str(folder)], capture_output=True, timeout=120, check=True
    )
    return Environment(folder, pip, index / "wheels")


def install_lines() -> Iterator[tuple[str, str]]:
    """Every place that tells pip to install or download, with the options it gives."""
    for place in ("Makefile", "README.md", "CONTRIBUTING.md", "docker/Dockerfile", *map(str, _pages()), *_automated()):
        text = (ROOT / place).read_text().replace("\\\n", " ")
        yield from ((place, line.strip()) for line in text.splitlines() if _INSTALLS.search(line))


def _automated() -> list[str]:
    """What machines run: our action, the workflows, the scripts of continuous integration."""
    folders = ((".github/workflows", "*.y*ml"), (".ci", "*"), ("deploy", "**/*.sh"))
    found = [path for folder, pattern in folders for path in sorted((ROOT / folder).glob(pattern)) if path.is_file()]
    return ["action.yml", *(str(path.relative_to(ROOT)) for path in found)]


def _pages() -> list[Path]:
    return [path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("which", ["its own", "oldest"])
@pytest.mark.parametrize("version", supported())
def test_the_lock_installs_from_an_index_that_offers_newer_versions(
    version: str, which: str, index: Path, tmp_path: Path
) -> None:
    if which == "oldest" and version != "3.11":
        pytest.skip("that pip came with Python 3.11")
    fresh = environment(tmp_path / "env", python(version), pip_of(version, which), index)
    (line,) = {line for place, line in install_lines() if place == "Makefile" and "run.txt" in line}
    options = [each for each in shlex.split(_OPTIONS.findall(line)[0]) if each.startswith("--")]
    done = fresh.run("install", *options, "-r", str(index / "run.txt"), "-r", str(index / "build.txt"))
    assert done.returncode == 0, done.stderr
    assert fresh.run("install", "--no-deps", "signwatch").returncode == 0
    checked = fresh.run("check")
    assert checked.returncode == 0, checked.stdout
    expected = {(each.name, each.version) for lock in ("run.txt", "build.txt") for each in pinned(lock)}
    assert set(fresh.installed().items()) <= expected | {("signwatch", "0.1.0")}


def test_control_letting_pip_resolve_fails_as_soon_as_a_newer_version_is_out(index: Path, tmp_path: Path) -> None:
    """Without `--no-deps` the pip of Python 3.11 takes an extra of a locked package from the index, and has no hash."""
    fresh = environment(tmp_path / "env", python("3.11"), pip_of("3.11", "oldest"), index)
    done = fresh.run("install", "--require-hashes", "-r", str(index / "run.txt"))
    assert done.returncode == 1
    assert "In --require-hashes mode, all requirements must have their versions pinned" in done.stderr


def test_every_place_that_installs_does_so_from_the_lock_without_resolving() -> None:
    lines = list(install_lines())
    assert {place for place, _ in lines} >= {"Makefile", "README.md", "docker/Dockerfile", "docs/operations.md"}
    # Controls: words in quotes, a path in a variable, a line that goes on below.
    assert {place for place, _ in lines} >= {"action.yml", ".github/workflows/release.yml"}
    assert {place for place, line in lines if "download" in line} >= {".ci/fetch-old-pip", ".ci/fetch-wheels"}
    for place, line in lines:
        assert "--no-deps" in line, (place, line)
        if _A_LOCK.search(line):
            assert "--require-hashes" in line, (place, line)
        else:
            # Our own source or wheel: the build back end is not to be fetched by pip either.
            assert "--no-build-isolation" in line or "--no-index" in line, (place, line)


@pytest.mark.parametrize(
    ("lock", "extras"), [("run.txt", {"sign"}), ("extras.txt", {"sign", "postgres", "pgp", "apprise"})]
)
def test_the_lock_holds_everything_that_is_required(lock: str, extras: set[str]) -> None:
    """Walks the requirements of installed packages, extras included, which `pip check` does not look at."""
    versions = {each.name: each.version for each in pinned(lock)}
    waiting = [Requirement(need) for need in project_needs()]
    waiting = [
        need for need in waiting if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras)
    ]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        assert name in versions, f"{need} is not in {lock}"
        assert need.specifier.contains(versions[name], prereleases=True), f"{need}: {lock} has {versions[name]}"
        if (name, frozenset(need.extras)) in seen:
            continue
        seen.add((name, frozenset(need.extras)))
        for each in map(Requirement, requires(name)):
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *need.extras)):
                waiting.append(each)
    assert len(seen) > len(project_needs())
