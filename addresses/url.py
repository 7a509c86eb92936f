"""A URL as messages, logs, pages and alerts may show it: host and path, never what may be a secret."""

from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

_LONGEST = 300
# Named here: Pythons differ in what they call loopback (3.13 counts IPv4-mapped addresses).
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def shown_url(url: str) -> str:
    """Scheme, host, port and path of a URL, without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    if not parts.scheme or not host:
        return "a URL without a host"
    try:
        # What stands for a port and is none may be a password.
        _ = parts.port
    except ValueError:
        return "a URL that cannot be read"
    return f"{parts.scheme}://{host}{parts.path}"[:_LONGEST]


def is_https_or_loopback(url: str) -> bool:
    """True if no host on the way can read or change the answer: TLS, or a server on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback_host(parts.hostname))
    )


def is_loopback_host(host: str | None) -> bool:
    """Whether a URL's host is this machine as written: `localhost`, or an address in 127.0.0.0/8 or ::1 (RFC 6890)."""
    try:
        return host == "localhost" or any(ip_address(host or "") in block for block in _LOOPBACK)
    except ValueError:
        return False


def has_credentials(url: str) -> bool:
    """True if a URL has a user or a password, even an empty one. Raises `ValueError` for a text that is no URL."""
    return "@" in urlsplit(url).netloc
