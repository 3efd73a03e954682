"""A real Chromium, headless, in a profile of its own: what a page becomes in it, and what it had to say about that."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """Its path; None when it is not here."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Dom(HTMLParser):
    """The document after everything in it that runs has run. ``console``: what Chromium logged of it."""

    console: str
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All of its text."""
        return "".join(self.texts)


def open_page(page: str, folder: Path) -> Dom:
    """Open a page from a file in ``folder`` and read it back."""
    chromium = find_chromium()
    assert chromium, "no Chromium here"
    folder.mkdir()
    (folder / "page.html").write_text(page, encoding="utf-8")
    done = subprocess.run(
        [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--dump-dom"),
            (folder / "page.html").as_uri(),
        ],
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        timeout=90,
        check=True,
    )
    dom = Dom(done.stderr.decode(errors="replace"))
    dom.feed(done.stdout.decode())
    return dom
