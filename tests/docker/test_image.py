"""The image and the compose files hold what they promise.

Both are parsed, the set-up command is run for real, and the compose files are checked against the schema of the Compose
specification. Where a container engine answers, the image is built and run; the Dockerfile's own install steps are run
in a clean folder anywhere.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.channels.registry import build_channel
from monitor.config import WebConfig, load_config
from rules.rule_file import load_rules
from tests.support.pythons import RUNNING, fetched

_ROOT = Path(__file__).parents[2]
_DOCKER = _ROOT / "docker"
_SECRET = re.compile(r"(?i)password|passphrase|secret|token|api[_-]?key|private[_-]?key|BEGIN [A-Z ]*KEY")


@dataclass(frozen=True)
class Instruction:
    word: str
    text: str


def dockerfile() -> list[Instruction]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", (_DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE))
    lines = [line.strip() for line in joined.splitlines() if line.strip()]
    found = [Instruction(*line.split(None, 1)) for line in lines]
    known = {
        *(
            "ARG",
            "FROM",
            "RUN",
            "COPY",
            "WORKDIR",
            "ENV",
            "USER",
            "VOLUME",
            "EXPOSE",
            "STOPSIGNAL",
            "HEALTHCHECK",
            "CMD",
        )
    }
    assert {instruction.word for instruction in found} <= known
    return found


def last_stage() -> list[Instruction]:
    instructions = dockerfile()
    start = max(place for place, instruction in enumerate(instructions) if instruction.word == "FROM")
    return instructions[start:]


def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((_DOCKER / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_the_base_of_every_stage_is_the_build_argument() -> None:
    instructions = dockerfile()
    assert instructions[0] == Instruction("ARG", "BASE=debian:bookworm-slim")
    bases = [instruction.text.split()[0] for instruction in instructions if instruction.word == "FROM"]
    assert bases == ["${BASE}", "${BASE}"]


def test_the_image_runs_as_an_ordinary_user_from_a_numeric_id() -> None:
    """Kubernetes' runAsNonRoot can check a number, not a name."""
    users = [instruction.text for instruction in last_stage() if instruction.word == "USER"]
    assert users == ["10001:10001"]
    words = [instruction.word for instruction in last_stage()]
    assert "RUN" not in words[words.index("USER") :], "what comes after USER must not need root"


def test_the_last_stage_has_no_compiler_and_no_installer() -> None:
    for instruction in last_stage():
        assert not re.search(
            r"\b(gcc|g\+\+|build-essential|make|cargo|rustc|pip|python3-dev|python3-venv)\b", instruction.text
        )
    build = " ".join(instruction.text for instruction in dockerfile() if instruction.word == "RUN")
    assert "uninstall -y pip" in build


def test_every_package_is_checked_against_its_hash() -> None:
    runs = " && ".join(instruction.text for instruction in dockerfile() if instruction.word == "RUN")
    installs = [command for command in runs.split("&&") if re.search(r"pip (install|wheel|download)", command)]
    assert len(installs) == 4
    for command in installs:
        from_lock = "--require-hashes" in command and "--only-binary :all:" in command
        ours = "--no-deps" in command and ("--no-index" in command or "--no-build-isolation" in command)
        assert from_lock or ours, command
    assert "-r requirements/run.txt" in runs


def test_what_the_build_copies_exists_and_is_not_ignored() -> None:
    allowed = {
        line[1:].rstrip("/")
        for line in (_DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
        if line[:1] == "!"
    }
    sources = []
    for instruction in dockerfile():
        if instruction.word == "COPY" and not instruction.text.startswith("--from"):
            sources += [source.rstrip("/") for source in instruction.text.split()[:-1]]
    assert set(sources) == allowed
    for source in sources:
        assert (_ROOT / source).exists(), source
    packages = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert set(packages) <= set(sources)


def test_the_health_check_asks_whether_the_process_lives_and_parses() -> None:
    (check,) = [instruction.text for instruction in last_stage() if instruction.word == "HEALTHCHECK"]
    command = yaml.safe_load(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    assert "http://127.0.0.1:9464/healthz" in command[2]
    compile(command[2], "healthcheck", "exec")


def test_neither_image_nor_compose_holds_a_secret() -> None:
    for instruction in dockerfile():
        if instruction.word in {"ENV", "ARG", "COPY"}:
            assert not _SECRET.search(instruction.text), instruction
    for name, service in compose()["services"].items():
        assert "environment" not in service, f"{name}: settings are files"
        assert "env_file" not in service, name
    for file in _DOCKER.rglob("*"):
        if file.is_file():
            assert "BEGIN " not in file.read_text(), file


def test_docker_holds_no_python() -> None:
    assert [file for file in _DOCKER.rglob("*") if file.suffix in {".py", ".pyc"}] == []


def test_compose_runs_the_four_programs_without_privileges() -> None:
    services = compose()["services"]
    assert {"ca", "log", "monitor", "prometheus"} <= set(services)
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert service.get("user", "10001") not in {"0", "root", "0:0"}, name


def compose_config(text: str) -> "subprocess.CompletedProcess[str]":
    found = shutil.which("docker-compose")
    if found is None:
        pytest.skip("docker-compose is missing: install the Debian package (.ci/install-debian-packages)")
    return subprocess.run(
        [found, "--project-directory", str(_DOCKER), "-f", "-", "config", "-q"],
        input=text,
        env={**os.environ, "SIGNWATCH_IMAGE": "registry.example/signwatch@sha256:" + "0" * 64},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["compose.yaml", "compose.production.yaml"])
def test_the_compose_files_fit_the_schema_of_the_compose_specification(name: str) -> None:
    text = (_DOCKER / name).read_text()
    # `name` came into the specification after the schema that Debian's program holds.
    text, names = re.subn(r"^name: [a-z-]+$", "", text, flags=re.MULTILINE)
    assert names == 1
    done = compose_config(text)
    assert done.returncode == 0, done.stderr
    assert compose_config(text.replace("cap_drop:", "cap_dorp:")).returncode == 1, "control"


def engine() -> str | None:
    """A container engine's program whose daemon answers."""
    found = shutil.which("docker")
    if found is None:
        return None
    asked = subprocess.run([found, "info"], capture_output=True, timeout=60, check=False)
    return found if asked.returncode == 0 else None


@pytest.mark.soak
def test_the_image_is_built_and_runs() -> None:
    found = engine()
    if found is None:
        pytest.skip("`docker info` does not answer: no container engine runs here")

    def docker(*arguments: str) -> str:
        done = subprocess.run([found, *arguments], cwd=_ROOT, capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    docker("build", "-f", "docker/Dockerfile", "-t", "signwatch:test", ".")
    hardened = ("run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none", "signwatch:test")
    assert docker(*hardened, "signwatch", "--version").startswith("signwatch ")
    assert docker(*hardened, "id", "-u").strip() == "10001"
    assert '"Test":["CMD","python"' in docker("inspect", "--format", "{{json .Config.Healthcheck}}", "signwatch:test")


def test_the_install_steps_of_the_dockerfile_work_in_a_clean_folder(tmp_path: Path) -> None:
    """The `RUN` lines without apt-get, with the folders of the image moved below a folder of our own."""
    wheels = fetched(RUNNING)
    if wheels is None:
        pytest.skip(f"the lock's packages for Python {RUNNING} are missing: .ci/fetch-wheels fetches them")
    from_disk = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    (tmp_path / "src").mkdir()
    for instruction in dockerfile():
        if instruction.word == "COPY" and not instruction.text.startswith("--from"):
            *sources, target = instruction.text.split()
            for source in sources:
                to = tmp_path / "src" / target.rstrip("/")
                if (_ROOT / source).is_dir():
                    shutil.copytree(_ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(_ROOT / source, to)
        elif instruction.word == "RUN" and "apt-get" not in instruction.text:
            moved = re.sub(r"(?<![\w.])/(opt|wheels)\b", rf"{tmp_path}/\1", instruction.text)
            moved = moved.replace("python3 -m venv", f"{sys.executable} -m venv")
            done = subprocess.run(
                ["sh", "-euc", moved],
                cwd=tmp_path / "src",
                env=from_disk,
                capture_output=True,
                text=True,
                timeout=1800,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    programs = tmp_path / "opt" / "signwatch" / "bin"
    assert not (programs / "pip").exists()
    shown = subprocess.run([programs / "signwatch", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("signwatch ")
    assert (tmp_path / "opt" / "signwatch" / "share" / "man" / "man1" / "signwatch.1").is_file()


def test_compose_publishes_on_loopback_only() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert sorted(port.rpartition(":")[2] for port in ports) == ["3000", "8080", "9090", "9464"]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_file_and_volume_compose_names_exists() -> None:
    document = compose()
    for name, service in document["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (_DOCKER / source).exists(), (name, source)
                assert volume.endswith(":ro"), (name, volume)
            else:
                assert source in document["volumes"], (name, source)
        if "build" in service:
            build = service["build"]
            assert (_DOCKER / build["context"] / build["dockerfile"]).is_file()
            assert build["args"] == {"BASE": "${BASE:-debian:bookworm-slim}"}
        network = service.get("network_mode", "")
        if network.startswith("service:"):
            assert network.removeprefix("service:") in document["services"]


def test_private_keys_stay_with_their_program() -> None:
    services = compose()["services"]
    holders = {
        volume: {
            name
            for name, service in services.items()
            if any(v.startswith(f"{volume}:") for v in service.get("volumes", []))
        }
        for volume in ("ca", "log", "monitor")
    }
    assert holders == {"ca": {"ca", "setup"}, "log": {"log", "setup"}, "monitor": {"monitor", "baseline"}}
    trust = [
        v for name, s in services.items() if name != "setup" for v in s.get("volumes", []) if v.startswith("trust:")
    ]
    assert trust
    assert all(volume.endswith(":ro") for volume in trust)


def test_every_program_compose_starts_is_one_of_ours() -> None:
    scripts = set(tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["scripts"])
    started = {name: service["command"][0] for name, service in compose()["services"].items() if "command" in service}
    assert {started["log"], started["ca"], started["baseline"]} <= scripts
    (command,) = [instruction.text for instruction in last_stage() if instruction.word == "CMD"]
    assert yaml.safe_load(command)[0] in scripts


def test_the_setup_command_makes_the_keys_and_every_file_the_others_need(tmp_path: Path) -> None:
    """Run for real, with the volumes' paths moved here."""
    service = compose()["services"]["setup"]
    script = service["command"][2]
    for volume in service["volumes"]:
        target = volume.split(":")[1]
        moved = tmp_path / Path(target).name
        moved.mkdir()
        script = script.replace(target, shlex.quote(str(moved)))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-euc", script], env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    public = {file.name for file in (tmp_path / "trust").iterdir()}
    assert {"trusted_root.json", "log-trust.json", "ca-chain.pem"} <= public
    for file in (tmp_path / "trust").iterdir():
        assert "PRIVATE KEY" not in file.read_text(), file.name
    assert yaml.safe_load((tmp_path / "ca-lite/ca/ca.yaml").read_text())["bind"] == "0.0.0.0"


def test_the_package_installer_is_a_script_that_says_what_it_does(tmp_path: Path) -> None:
    script = _ROOT / ".ci" / "install-debian-packages"
    assert os.access(script, os.X_OK)
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is missing")
    # With an empty PATH there is no apt-get: it must say what is missing, and not fail.
    done = subprocess.run([bash, str(script)], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "missing: prometheus" in done.stdout


def test_the_monitors_configuration_loads_and_its_rules_parse() -> None:
    config = load_config(_DOCKER / "config" / "signwatch.yaml")
    assert {build_channel(settings).name for settings in config.channels.values()} == set(config.notify)
    assert config.web == WebConfig(("0.0.0.0", 9464))
    loaded = load_rules((_DOCKER / "config" / "rules.yaml").read_text())
    assert [rule.id for rule in loaded.rules] == ["acme-release"]


def production() -> dict[str, Any]:
    loaded = yaml.safe_load((_DOCKER / "compose.production.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_production_runs_the_monitor_alone_without_privileges_and_limits_it() -> None:
    services = production()["services"]
    assert set(services) == {"init", "monitor"}
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "environment" not in service, f"{name}: settings are files"
        assert service["image"].startswith("${SIGNWATCH_IMAGE:?"), "an operator's own image, never a guess"
        assert {volume.rpartition(":")[2] for volume in service["volumes"]} == {"ro", "/var/lib/signwatch"}
    assert services["init"]["profiles"] == ["setup"], "a first start is asked for"
    monitor = services["monitor"]
    assert all(port.startswith("127.0.0.1:") for port in monitor["ports"])
    assert {"mem_limit", "pids_limit", "ulimits"} <= set(monitor)


def test_productions_configuration_loads_and_its_rules_parse() -> None:
    config = load_config(_DOCKER / "config.production" / "signwatch.yaml")
    assert {build_channel(settings).name for settings in config.channels.values()} == set(config.notify)
    assert load_rules((_DOCKER / "config.production" / "rules.yaml").read_text()).rules
