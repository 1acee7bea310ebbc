"""Keep what a running server sends, byte for byte: `python tests/real/capturing.py SERVER URL [--model NAME]`.

Writes into `tests/sources/captures` one file a request: the body of the answer as it came, the framing of HTTP taken
off, and its row in `index.json`: what was asked, the status, and the media type. A stream is a `.sse`, the rest keeps
the ending of its media type.
"""

from __future__ import annotations

import argparse
import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CAPTURES = Path(__file__).resolve().parents[1] / "sources" / "captures"
ENDINGS = {"text/event-stream": ".sse", "application/json": ".json", "text/html": ".html", "text/plain": ".txt"}

CAT = "The cat sat on the"
CHINESE = "English: The cat sat on the mat.\nChinese:"
MESSAGES = [{"role": "user", "content": CAT}]

Asked = dict[str, Any]


def completion(model: str, prompt: str | list[int] = CAT, **fields: object) -> Asked:
    return {"model": model, "prompt": prompt, "max_tokens": 12, "stream": True, "temperature": 0, **fields}


def chat(model: str, **fields: object) -> Asked:
    return {"model": model, "messages": MESSAGES, "max_tokens": 6, "stream": True, "temperature": 0, **fields}


def transformers_requests(model: str) -> dict[str, tuple[str, Asked | bytes | None]]:
    """What is asked of `transformers serve`, by the name of its capture."""
    return {
        "completions": ("/v1/completions", completion(model)),
        "completions-end": ("/v1/completions", completion(model, CHINESE, max_tokens=40)),
        "completions-logprobs-ignored": (
            "/v1/completions",
            completion(model, max_tokens=3, logprobs=5, stream_options={"include_usage": True}),
        ),
        "completions-plain": ("/v1/completions", completion(model, stream=False)),
        "completions-unknown-field": ("/v1/completions", completion(model, return_token_ids=True)),
        "completions-ids": ("/v1/completions", completion(model, [650, 987, 958, 869, 552])),
        "completions-no-json": ("/v1/completions", b"not json"),
        "completions-other-model": ("/v1/completions", completion("nothing/here")),
        "chat": ("/v1/chat/completions", chat(model)),
        "chat-logprobs-ignored": ("/v1/chat/completions", chat(model, logprobs=True, top_logprobs=2, max_tokens=2)),
        "models": ("/v1/models", None),
        "metrics": ("/metrics", None),
    }


def llama_requests(model: str) -> dict[str, tuple[str, Asked | bytes | None]]:
    """What is asked of llama.cpp's server, by the name of its capture."""
    usage = {"include_usage": True}
    return {
        "completions": ("/v1/completions", completion(model)),
        "completions-logprobs": ("/v1/completions", completion(model, logprobs=3, stream_options=usage)),
        "completions-end": ("/v1/completions", completion(model, CHINESE, logprobs=2, max_tokens=40)),
        "completions-timings": (
            "/v1/completions",
            completion(model, max_tokens=4, timings_per_token=True, return_progress=True),
        ),
        "completions-two": ("/v1/completions", completion(model, n=2, logprobs=1, max_tokens=3)),
        "completions-plain": ("/v1/completions", completion(model, stream=False, logprobs=2, max_tokens=3)),
        "completions-unknown-field": ("/v1/completions", completion(model, return_token_ids=True, max_tokens=2)),
        "completions-ids": ("/v1/completions", completion(model, [650, 987, 958, 869, 552], max_tokens=3)),
        "completions-too-long": ("/v1/completions", completion(model, [552] * 1100)),
        "completions-no-json": ("/v1/completions", b"not json"),
        "completions-no-prompt": ("/v1/completions", {"model": model, "max_tokens": 3, "stream": True}),
        "completions-wrong-type": ("/v1/completions", completion(model, max_tokens="x")),
        "completions-other-model": ("/v1/completions", completion("nothing/here", max_tokens=2)),
        "completion": ("/completion", {"prompt": CAT, "n_predict": 3, "n_probs": 2, "stream": True, "temperature": 0}),
        "chat": ("/v1/chat/completions", chat(model)),
        "chat-logprobs": (
            "/v1/chat/completions",
            chat(model, logprobs=True, top_logprobs=2, stream_options=usage),
        ),
        "models": ("/v1/models", None),
        "metrics": ("/metrics", None),
    }


REQUESTS = {"transformers": transformers_requests, "llamacpp": llama_requests}


def answer(url: str, path: str, asked: Asked | bytes | None) -> tuple[int, str, bytes]:
    """Status, media type and body of one answer."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=60)
    body = asked if isinstance(asked, bytes) or asked is None else json.dumps(asked).encode()
    try:
        connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        media = response.getheader("Content-Type", "").partition(";")[0]
        return response.status, media, response.read()
    finally:
        connection.close()


def keep(server: str, version: str, url: str, model: str) -> None:
    """Ask all that is known to ask of `server`, and write what it sends."""
    CAPTURES.mkdir(exist_ok=True)
    index_path = CAPTURES / "index.json"
    index = json.loads(index_path.read_text(encoding="utf-8")) if index_path.exists() else {}
    for name, (path, asked) in REQUESTS[server](model).items():
        status, media, body = answer(url, path, asked)
        file = f"{server}-{name}{ENDINGS.get(media, '.txt')}"
        (CAPTURES / file).write_bytes(body)
        index[file] = {
            "server": server,
            "version": version,
            "origin": "recorded",
            "path": path,
            "status": status,
            "media": media,
            "request": asked.decode() if isinstance(asked, bytes) else asked,
        }
    text = json.dumps(dict(sorted(index.items())), indent=1, ensure_ascii=False)
    index_path.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", choices=sorted(REQUESTS))
    parser.add_argument("url")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--version", required=True, help="the version of the server")
    options = parser.parse_args()
    keep(options.server, options.version, options.url, options.model)


if __name__ == "__main__":
    main()
