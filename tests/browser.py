"""A real Chromium, headless, and programs of npm: for tests that skip, saying so, where the machine has none."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PINS = json.loads(Path(__file__).with_name("package.json").read_text())["dependencies"]
"""Versions of what is taken from npm."""


def chromium() -> str:
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    return found


@cache
def _installed(folder: Path, name: str) -> str:
    """Empty, or why there is none."""
    npm = shutil.which("npm")
    if npm is None:
        return "no npm here: apt-get install npm"
    command = [npm, "install", "--silent", "--no-save", "--prefix", str(folder), f"{name}@{PINS[name]}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return "" if done.returncode == 0 else f"npm could not install {name}: {done.stderr.strip()[-200:]}"


def node_package(folder: Path, name: str) -> Path:
    """The package's folder, installed under ``folder``."""
    problem = _installed(folder, name)
    if problem:
        pytest.skip(problem)
    return folder / "node_modules" / name


def run_chromium(page: Path, *options: str, width: int = 1440, height: int = 900) -> str:
    """What it prints. Each run has a profile of its own."""
    command = [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={page.with_suffix('.profile')}", f"--window-size={width},{height}"]
    command += ["--virtual-time-budget=20000", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


ANSWER = """
<script>(async () => {
  let value;
  try { value = await (async () => { PROGRAM })() } catch (e) { value = {error: String(e)} }
  parent.postMessage(encodeURIComponent(JSON.stringify(value)), '*');
})()</script>
"""
FRAME = """<!doctype html><body style="margin: 0"><iframe src="PAGE" width="WIDTH" height="4000" style="border: 0"></iframe>
<script>addEventListener('message', e => {
  const out = document.createElement('pre'); out.id = 'answer'; out.textContent = e.data; document.body.append(out);
})</script>
"""


def evaluated(page: Path, width: int, program: str, library: str = "") -> Any:
    """The JSON value that ``program``, the body of an async function, returns in a page so wide: in a frame, since a window of
    Chromium is never as narrow as a phone. The page may forbid scripts: a copy without that line is opened."""
    lines = [line for line in page.read_text().splitlines() if "Content-Security-Policy" not in line]
    script = f"<script>{library}</script>" + ANSWER.replace("PROGRAM", program)
    copy, frame = page.with_name(f"{page.stem}-copy.html"), page.with_name(f"{page.stem}-frame.html")
    copy.write_text("\n".join(lines).replace("</body>", script + "</body>"))
    frame.write_text(FRAME.replace("PAGE", copy.name).replace("WIDTH", str(width)))
    shown = run_chromium(frame, "--dump-dom")
    value = json.loads(unquote(shown.split('<pre id="answer">')[1].split("</pre>")[0]))
    assert not isinstance(value, dict) or "error" not in value, value
    return value
