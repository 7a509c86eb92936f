"""Without authorities for TLS, sign-lite names its own installation or the setting, and blames no server."""

from collections.abc import Callable
from pathlib import Path

import certifi
import pytest
import requests

from outbound import transport
from sign_lite import login, signing
from sign_lite.errors import InstallationFault, Misuse, ServiceUnreachable
from sign_lite.login import device_token
from tests.sign_lite.test_login import without_proxy

# Nothing listens there.
_NOWHERE = "https://127.0.0.1:9"


def device_login() -> None:
    device_token(_NOWHERE, lambda _: None, lambda _: None, lambda: 0.0)


def browser_login() -> None:
    with login._translated():
        requests.get(_NOWHERE, timeout=10)


def request_while_signing() -> None:
    with signing._translated():
        requests.get(_NOWHERE, timeout=10)


ASKING = pytest.mark.parametrize("ask", [device_login, browser_login, request_while_signing])
PROXY = pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:9", "https://127.0.0.1:9"])


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxy(monkeypatch)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    transport._usual_authorities.cache_clear()


@ASKING
@PROXY
def test_a_server_that_does_not_answer_is_unreachable(
    ask: Callable[[], None], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proxy:
        monkeypatch.setenv("https_proxy", proxy)
    with pytest.raises(ServiceUnreachable, match="try again later"):
        ask()


@ASKING
@PROXY
def test_missing_authorities_are_a_fault_of_the_installation(
    ask: Callable[[], None], proxy: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if proxy:
        monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "cacert.pem"))
    with pytest.raises(InstallationFault, match="Install the Python package `certifi` again") as told:
        ask()
    assert told.value.exit_code == 3
    assert "REQUESTS_CA_BUNDLE" in str(told.value)
    assert "None" not in str(told.value)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", Path(requests.utils.DEFAULT_CA_BUNDLE_PATH).as_posix())
    with pytest.raises(ServiceUnreachable, match="try again later"):
        ask()


@ASKING
@PROXY
@pytest.mark.parametrize("content", [None, "none"])
def test_named_authorities_that_cannot_be_read_are_wrong_usage(
    ask: Callable[[], None],
    proxy: str | None,
    content: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if proxy:
        monkeypatch.setenv("https_proxy", proxy)
    named, why = tmp_path / "named.pem", "No such file" if content is None else "no certificate in it"
    if content is not None:
        named.write_text(content, encoding="utf-8")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(named))
    with pytest.raises(Misuse, match=f"{named}: cannot be used as authorities for TLS: {why}"):
        ask()
