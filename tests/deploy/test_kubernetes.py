"""The Kubernetes manifests fit the API's schemas and hold what the image needs."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from monitor.config import load_config
from rules.rule_file import load_rules

_ROOT = Path(__file__).parents[2]
_FOLDER = _ROOT / "deploy" / "kubernetes"
# The oldest release that the Kubernetes project still mends, and the newest one that the schemas know.
_VERSIONS = ("1.34", "1.37")


def manifests(*names: str) -> list[dict[str, Any]]:
    return [
        each
        for name in names or ("signwatch.yaml", "init.yaml")
        for each in yaml.safe_load_all((_FOLDER / name).read_text())
    ]


def rendered() -> list[dict[str, Any]]:
    built = sorted((_ROOT / ".go-clients").glob("*/kustomize"))
    found = shutil.which("kustomize") or (str(built[-1]) if built else None)
    if found is None:
        pytest.skip("kustomize is not built: run .ci/install-go-clients")
    done = subprocess.run([found, "build", str(_FOLDER)], capture_output=True, text=True, timeout=60, check=True)
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("version", _VERSIONS)
@pytest.mark.parametrize("manifest", manifests(), ids=lambda manifest: manifest["kind"])
def test_each_manifest_fits_its_schema(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelled_key_is_noticed() -> None:
    """Control."""
    [wrong] = [each for each in manifests() if each["kind"] == "StatefulSet"]
    wrong["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, _VERSIONS[-1], strict=True)


def test_kustomize_renders_the_one_file_with_the_image_set() -> None:
    found = rendered()
    assert {each["kind"] for each in found} == {each["kind"] for each in manifests("signwatch.yaml")}
    for each in found:
        kubernetes_validate.validate(each, _VERSIONS[-1], strict=True)
    [workload] = [each for each in found if each["kind"] == "StatefulSet"]
    assert workload["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/signwatch:0.1.0"


def pods() -> list[dict[str, Any]]:
    return [each["spec"]["template"]["spec"] for each in manifests() if "template" in each.get("spec", {})]


def test_every_pod_fits_the_restricted_pod_security_standard() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_probes_ask_whether_the_process_lives() -> None:
    [monitor] = [each["containers"][0] for each in pods() if each["containers"][0]["name"] == "signwatch"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert monitor[probe]["httpGet"]["path"] == "/healthz"


def test_the_user_is_the_images_and_every_mount_has_a_volume() -> None:
    (user,) = [
        line.split()[1] for line in (_ROOT / "docker/Dockerfile").read_text().splitlines() if line.startswith("USER ")
    ]
    for pod in pods():
        context = pod["securityContext"]
        assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]} == volumes


def test_the_configuration_in_it_loads(tmp_path: Path) -> None:
    [data] = [each["data"] for each in manifests() if each["kind"] == "ConfigMap"]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    config = load_config(tmp_path / "signwatch.yaml")
    assert config.notify
    assert Path(config.database).parent == Path("/var/lib/signwatch")
    assert load_rules((tmp_path / "rules.yaml").read_text()).rules


def test_two_daemons_never_share_the_volume() -> None:
    [workload] = [each for each in manifests() if each["kind"] == "StatefulSet"]
    assert workload["spec"]["replicas"] == 1
    [claim] = [each for each in manifests() if each["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
