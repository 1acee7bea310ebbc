"""Models of the hub, against a small hub in this process: found, cached, and every way in which it says no."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from tokentape.errors import ModelError, TokentapeError, Unreachable, UsageError
from tokentape.models.causal import load

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "owner/name"


@dataclass
class Hub:
    """Answers as the hub does, for one repository; ``refusal`` is (status, X-Error-Code) for every question about it."""

    files: dict[str, bytes]
    refusal: tuple[int, str] | None = None
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    address: str = ""

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        if REPO not in path:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if self.refusal is not None:
            return self.refusal[0], {"X-Error-Code": self.refusal[1]}, b"{}"
        if path.startswith("/api/") and "/tree/" in path:
            tree = [
                {"type": "file", "path": n, "size": len(d), "oid": f"{i:040x}"}
                for i, (n, d) in enumerate(self.files.items())
            ]
            return 200, {}, json.dumps(tree).encode()
        if path.startswith("/api/"):
            revision = path.rpartition("/revision/")[2] if "/revision/" in path else "main"
            if revision.partition("?")[0] not in {"main", "v1", COMMIT}:
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            siblings = [{"rfilename": name} for name in self.files]
            return 200, {}, json.dumps({"id": REPO, "sha": COMMIT, "siblings": siblings}).encode()
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        if name not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        return 200, {"ETag": f'"{list(self.files).index(name):040x}"', "X-Repo-Commit": COMMIT}, self.files[name]


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.tokens.add(self.headers.get("Authorization"))
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub({path.name: path.read_bytes() for path in whole.iterdir()})
    hub.files["onnx/model.onnx"] = b"not to be downloaded"
    hub.files["pytorch_model.bin"] = b"not to be downloaded"
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_test")
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def refused(name: str, **options: object) -> TokentapeError:
    with pytest.raises(TokentapeError) as caught:
        load(name, **options)
    assert caught.value.what and caught.value.why and caught.value.fix
    return caught.value


def test_downloaded_once_and_then_read_without_a_network(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = load(f"{REPO}@v1")
    assert (first.name, first.revision) == (REPO, COMMIT)
    assert first.encode("the cat")
    assert capfd.readouterr().out == ""
    fetched = [path for path in hub.asked if "/resolve/" in path]
    assert any("model.safetensors" in path for path in fetched)
    assert not any("onnx" in path or "pytorch_model" in path for path in fetched), "only what is read is downloaded"
    assert "Bearer hf_of_this_test" in hub.tokens
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load(REPO, revision=COMMIT).revision == COMMIT
    assert load(f"{REPO}@v1").revision == COMMIT
    assert hub.asked == []


def test_weights_are_missing_from_the_cache(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load(REPO)
    next((tmp_path / "hub").rglob("model.safetensors")).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused(REPO)
    assert type(error) is Unreachable
    assert "weights" in error.what and str(tmp_path / "hub") in error.why


@pytest.mark.parametrize(
    ("status", "code", "kind", "facts"),
    [
        (403, "GatedRepo", Unreachable, ["gated", "HF_TOKEN", REPO]),
        (401, "RepoNotFound", UsageError, ["no model 'owner/name'", "HF_TOKEN", "spelling"]),
        (404, "RevisionNotFound", UsageError, ["no revision", "main"]),
        (500, "", Unreachable, ["refused", "500"]),
    ],
)
def test_hub_says_no(
    hub: Hub, status: int, code: str, kind: type[TokentapeError], facts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.refusal = (status, code)
    error = refused(REPO)
    assert type(error) is kind, error
    assert not [fact for fact in facts if fact not in str(error)], error


def test_page_of_a_gated_model_is_named(hub: Hub) -> None:
    hub.refusal = (403, "GatedRepo")
    assert f"{hub.address}/{REPO}" in refused(REPO).fix


def test_no_such_revision(hub: Hub) -> None:
    error = refused(f"{REPO}@v9")
    assert type(error) is UsageError and "'v9'" in error.what


def test_repository_without_config(hub: Hub) -> None:
    hub.files.pop("config.json")
    error = refused(REPO)
    assert type(error) is ModelError and "config.json" in error.what


def test_model_that_is_not_causal_is_refused_before_its_weights_are_downloaded(hub: Hub) -> None:
    hub.files["config.json"] = b'{"model_type": "bert", "architectures": ["BertForMaskedLM"]}'
    assert type(refused(REPO)) is ModelError
    assert not any("model.safetensors" in path for path in hub.asked if "/resolve/" in path)


def test_random_weights_are_not_for_a_repository(hub: Hub) -> None:
    error = refused(REPO, random_weights=1)
    assert type(error) is UsageError and "random" in error.what


def test_hub_is_down(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    error = refused(REPO)
    assert type(error) is Unreachable
    assert "http://127.0.0.1:9" in error.why
