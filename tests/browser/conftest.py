"""A browser, and the tapes that it looks at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import Browser, sync_playwright

from browser.visits import FLAGS, chromium
from tokentape.cli.program import run


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Closed with the last test of this folder: while it is open, its event loop would be in the way of others."""
    path = chromium()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


def done(*words: object) -> None:
    """Run the program as a user does."""
    assert run([str(word) for word in words]) == 0


def recorded(path: Path, *, seed: int) -> None:
    """Sixty tokens of the model that ships."""
    sampled = ("--do-sample", "--seed", seed, "--ignore-eos", "-n", 60)
    done("record", "demo", "Once upon a time there was a cat", *sampled, "-o", path, "-q")


@pytest.fixture(scope="package")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this machine can do, measured, so that a roofline can be drawn; kept apart from the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        assert run(["doctor", "--measure", "--json"]) in (0, 4)  # 4 where something is missing that is not needed here
        yield


@pytest.fixture(scope="package")
def story(tmp_path_factory: pytest.TempPathFactory, measured: None) -> Path:
    """A tape of the model that ships, with everything that a replay can add to it."""
    path = tmp_path_factory.mktemp("story") / "story.tape"
    recorded(path, seed=7)
    done("explain", path, "--all", "--json")  # --json: no progress line
    done("explain", path, "--attention", "--all", "--json")
    done("explain", path, "--lens", "--all", "--json")
    done("explain", path, "--direct", "--all", "--json")
    return path


@pytest.fixture(scope="package")
def report(story: Path) -> Path:
    """The story's page as a file."""
    path = story.with_suffix(".html")
    done("view", story, "--html", path)
    return path


@pytest.fixture(scope="package")
def other(story: Path) -> Path:
    """A tape that begins as the story does, and parts from it."""
    path = story.with_name("other.tape")
    recorded(path, seed=8)
    return path


@pytest.fixture(scope="package")
def comparison(story: Path, other: Path) -> Path:
    """The page of two tapes."""
    path = story.with_name("compare.html")
    done("view", story, other, "--across", "seed", "--html", path)
    return path
