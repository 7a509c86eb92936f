"""Screenshots of the site for the documentation: `python -m tests.browser.pictures docs/images` writes them."""

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from monitor.store.database import create
from tests.browser.site_pages import eyes
from tests.site.scene import REPOSITORY, scene

PICTURES = (
    ("site-front.png", "/", 1280, 860, False),
    ("site-name.png", f"/look?name={REPOSITORY}", 1280, 1060, False),
    ("site-name-phone.png", f"/look?name={REPOSITORY}", 390, 1000, True),
    ("site-subscribe.png", f"/subscribe?name={REPOSITORY}", 1280, 1060, False),
)


def take(folder: Path) -> list[Path]:
    """Write every picture; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory(prefix="signwatch-pictures-") as temporary:
        database = create(str(Path(temporary) / "signwatch.db"), datetime.now(UTC), "pictures")
        with scene(Path(temporary), database) as acme:
            acme.a_year()
            for name, path, width, height, dark in PICTURES:
                with eyes(acme.url, width=width, dark=dark) as seen:
                    seen.page.set_viewport_size({"width": width, "height": height})
                    seen.open(path)
                    seen.page.screenshot(path=folder / name)
                    written.append(folder / name)
        database.close()
    return written


if __name__ == "__main__":
    take(Path(sys.argv[1]))
