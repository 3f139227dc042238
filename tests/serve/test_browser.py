# SPDX-License-Identifier: Apache-2.0
"""The page in headless Chromium, from drop to playback, with a file for a microphone.

Screenshots go to the folder that AFFECTCODEC_SCREENSHOTS names, otherwise to a temporary one.
AFFECTCODEC_CHROMIUM names a browser that is not on the path.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import affectcodec

pytest.importorskip("aiohttp")
playwright = pytest.importorskip("playwright.sync_api")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("AFFECTCODEC_CHROMIUM") or next(
    filter(None, map(shutil.which, NAMES)), ""
)
SAMPLES = Path(affectcodec.__file__).parent / "samples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not CHROMIUM, reason="no Chromium: install Debian's `chromium`, or set AFFECTCODEC_CHROMIUM"
    ),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of `affectcodec serve` with the shipped weights."""
    command = [sys.executable, "-u", "-m", "affectcodec", "serve", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        found = re.match(r"(http://127\.0\.0\.1:\d+/) ", server.stdout.readline())
        assert found is not None
        yield found[1]
    finally:
        server.terminate()
        server.communicate(timeout=30)


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("AFFECTCODEC_SCREENSHOTS")
    return Path(named) if named else tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microphone hears: a WAV file, as Chromium wants it."""
    import soundfile

    wav, rate = soundfile.read(SAMPLES / "female-1.flac")
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    soundfile.write(path, wav, rate, subtype="PCM_16")
    return path


@pytest.fixture
def page(sound: Path, address: str) -> Iterator[Any]:
    arguments = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}",
        "--autoplay-policy=no-user-gesture-required",
    ]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=arguments, chromium_sandbox=False
        )
        try:
            page = browser.new_page(viewport={"width": 1000, "height": 1000})
            page.set_default_timeout(120_000)
            problems: list[str] = []
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
            page.goto(address)
            wait_for_status(page, "ready")
            yield page
            assert problems == []
        finally:
            browser.close()


def wait_for_status(page: Any, text: str) -> None:
    page.wait_for_function(
        "text => document.getElementById('status').textContent.startsWith(text)", arg=text
    )


def drop(page: Any, data: bytes, name: str) -> None:
    """Drop a file on the page, as the system's file manager would."""
    page.evaluate(
        """([base64, name]) => {
            const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name));
            for (const type of ['dragover', 'drop'])
                document.getElementById('drop').dispatchEvent(new DragEvent(
                    type, { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        [base64.b64encode(data).decode(), name],
    )


def coded_samples(page: Any) -> int:
    return int(page.evaluate("() => +(document.getElementById('coded').dataset.samples || 0)"))


def coded_source(page: Any) -> str:
    return str(page.evaluate("() => document.getElementById('coded').src"))


def next_source(page: Any, before: str) -> str:
    page.wait_for_function("old => document.getElementById('coded').src !== old", arg=before)
    wait_for_status(page, "ready")
    return coded_source(page)


def play(page: Any, name: str) -> None:
    """Play a clip for a while; it must move."""
    page.evaluate("async id => { await document.getElementById(id).play(); }", name)
    page.wait_for_function("id => document.getElementById(id).currentTime > 0.3", arg=name)
    page.evaluate("id => document.getElementById(id).pause()", name)


def colours(page: Any, canvas: str) -> int:
    """How many colours a picture of codes has."""
    return int(
        page.evaluate(
            """id => {
                const c = document.getElementById(id);
                const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
                return new Set(new Uint32Array(d.buffer)).size;
            }""",
            canvas,
        )
    )


def test_from_drop_to_playback(page: Any, screenshots: Path) -> None:
    import soundfile

    frames = soundfile.info(SAMPLES / "male-1.flac").frames
    drop(page, (SAMPLES / "male-1.flac").read_bytes(), "male-1.flac")
    source = next_source(page, "")
    assert abs(coded_samples(page) - frames) <= 2
    assert colours(page, "emotion-codes") > 4 and colours(page, "acoustic-codes") > 50
    play(page, "original")
    play(page, "coded")
    page.screenshot(path=screenshots / "page-coded.png")

    rate = page.inner_text("#rate")
    page.evaluate(
        """() => { const s = document.getElementById('acoustic'); s.value = 1;
            for (const e of ['input', 'change']) s.dispatchEvent(new Event(e)); }"""
    )
    source = next_source(page, source)
    assert float(page.inner_text("#rate").split()[0]) < float(rate.split()[0])
    page.check("input[value=strip]")
    source = next_source(page, source)
    page.click("#donor")
    wait_for_status(page, "donor set")

    drop(page, (SAMPLES / "female-1.flac").read_bytes(), "female-1.flac")
    source = next_source(page, source)
    page.check("input[value=swap]")
    source = next_source(page, source)
    play(page, "coded")
    page.screenshot(path=screenshots / "page-swapped.png")


def test_a_file_that_is_no_sound(page: Any) -> None:
    drop(page, b"no sound at all", "notes.txt")
    wait_for_status(page, "this file cannot be decoded here")
    page.set_input_files("#file", SAMPLES / "male-1.flac")
    next_source(page, "")


def test_speaking_into_the_microphone(page: Any, screenshots: Path) -> None:
    page.click("#record")
    wait_for_status(page, "recording")
    page.wait_for_timeout(2000)
    page.click("#record")
    next_source(page, "")
    assert coded_samples(page) > 16000
    play(page, "coded")
    page.click("#live")
    wait_for_status(page, "live, 40 ms behind")
    page.wait_for_function("() => +(document.getElementById('live').dataset.samples || 0) > 24000")
    page.screenshot(path=screenshots / "page-live.png")
    page.click("#live")
    wait_for_status(page, "ready")
