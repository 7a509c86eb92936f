"""Image names: what a registry client makes of them, and what is refused."""

import pytest

from addresses.image_name import BadImageName, parse_image_name

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        (f"ghcr.io/acme/app@{DIGEST}", "ghcr.io", "acme/app", None, DIGEST),
        ("localhost:5000/app", "localhost:5000", "app", None, None),
        (f"localhost/a/b_c/d__e:v1.2@{DIGEST}", "localhost", "a/b_c/d__e", "v1.2", DIGEST),
        ("[::1]:5000/app:latest", "[::1]:5000", "app", "latest", None),
        ("alpine", "index.docker.io", "library/alpine", None, None),
        ("acme/app:3", "index.docker.io", "acme/app", "3", None),
        ("docker.io/alpine", "index.docker.io", "library/alpine", None, None),
    ],
)
def test_a_name_is_read_as_every_client_reads_it(
    text: str, registry: str, repository: str, tag: str | None, digest: str | None
) -> None:
    name = parse_image_name(text)
    assert (name.registry, name.repository, name.tag, name.digest) == (registry, repository, tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ghcr.io/",
        "ghcr.io/Acme/app",
        "ghcr.io/acme//app",
        "ghcr.io/acme/../app",
        "ghcr.io/acme/app@",
        "ghcr.io/acme/app@sha256:abc",
        f"ghcr.io/acme/app@{DIGEST.upper()}",
        f"ghcr.io/acme/app@sha512:{'ab' * 64}",
        "ghcr.io/acme/app:",
        "ghcr.io/acme/app:a b",
        "https://ghcr.io/acme/app",
        "user:secret@ghcr.io/acme/app",
        "ghcr.io:99999999/acme/app",
        "ghcr.io/acme/app\n",
        "ghcr.io/" + "a/" * 200 + "a",
    ],
)
def test_what_names_no_image_is_refused(text: str) -> None:
    with pytest.raises(BadImageName):
        parse_image_name(text)
