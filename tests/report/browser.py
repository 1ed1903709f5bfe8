"""Opens pages in a headless Chromium, and says what it found there."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """A headless Chromium with an empty profile.

    Attributes:
        driver: selenium's.
        downloads: the folder where downloaded files go.
    """

    def __init__(self, driver: "Chrome", downloads: Path):
        self.driver = driver
        self.downloads = downloads

    def open(self, path: Path, anchor: str = "") -> None:
        """Opens a file, at a place of it, and forgets what earlier pages said."""
        self.driver.get("about:blank")
        self.messages()
        self.requests()
        self.driver.get(path.absolute().as_uri() + (f"#{anchor}" if anchor else ""))
        deadline = time.monotonic() + 20
        while self.run("return document.readyState") != "complete" and time.monotonic() < deadline:
            time.sleep(0.05)

    def run(self, script: str, *arguments: object) -> Any:
        """Returns what a function's body in JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def messages(self) -> list[str]:
        """Returns what the console was told since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Returns every address that was asked for since this was called last."""
        found = []
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                found.append(event["params"]["request"]["url"])
        return found

    def downloaded(self, name: str, seconds: float = 10) -> bytes:
        """Waits for a file to be downloaded, and returns its bytes."""
        path = self.downloads / name
        deadline = time.monotonic() + seconds
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return path.read_bytes()


@contextmanager
def headless_browser(folder: Path) -> Iterator[Browser]:
    """Starts a browser, or skips the test where there is none.

    Args:
        folder: an empty one, for its profile and what it downloads.
    """
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    chromedriver = shutil.which("chromedriver")
    if binary is None or chromedriver is None:
        pytest.skip("needs Chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    downloads = folder / "downloads"
    downloads.mkdir(parents=True)
    for option in (*OPTIONS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(option)
    preferences = {
        "download.default_directory": str(downloads),
        "download.prompt_for_download": False,
        "profile.default_content_setting_values.automatic_downloads": 1,
    }
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        yield Browser(driver, downloads)
    finally:
        driver.quit()
