"""URLs for messages, logs, pages and alerts: the parts that may be shown, without the parts that may be secret."""

from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

_LONGEST = 300
# Defined here because Python versions differ on loopback (3.13 includes IPv4-mapped addresses).
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
        # A text in the place of the port that is not a number may be a password.
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
    """True if a URL's host is written as `localhost`, an address in 127.0.0.0/8, or ::1 (RFC 6890)."""
    try:
        return host == "localhost" or any(ip_address(host or "") in block for block in _LOOPBACK)
    except ValueError:
        return False


def has_credentials(url: str) -> bool:
    """True if a URL has a user or a password, even an empty one. Raises `ValueError` for a text that is no URL."""
    return "@" in urlsplit(url).netloc
