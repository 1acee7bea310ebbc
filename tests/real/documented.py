"""Streams in the forms of servers that are not at hand: `python tests/real/documented.py`.

Nobody recorded these. Tokens, ids and log-probabilities are those that llama.cpp's server sent for the demo model
(`llamacpp-completions-logprobs.sse`), laid out as the source of vLLM and of SGLang says that they lay them out; each row
of `index.json` names the file and the commit that was read. Where a machine with such a server is at hand,
`capturing.py` should replace them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from capturing import CAPTURES, MESSAGES, Asked, chat, completion

MODEL = "demo"
PROMPT_IDS = [650, 987, 958, 869, 552]
CREATED = 1795730694

VLLM_COMPLETION = "vllm/entrypoints/openai/completion/serving.py at 030ea52effcb05071543c8c42b8f0145e94cee43"
VLLM_CHAT = "vllm/entrypoints/openai/chat_completion/serving.py at 006c49d485f9ca479bf4989cbb694d0ac02f44b5"
SGLANG_COMPLETION = (
    "python/sglang/srt/entrypoints/openai/serving_completions.py at 004c82e07d876f6e4a0ad6e15325706b0f478f1a"
)
# The classes of its messages. The order of the events is that of an older serving_chat.py, as another project keeps it, and the
# shape of its errors is known from excerpts: to be compared with a running server when there is one.
SGLANG_CHAT = "python/sglang/srt/entrypoints/openai/protocol.py at 004c82e07d876f6e4a0ad6e15325706b0f478f1a"

Token = dict[str, Any]
Json = dict[str, Any]


def said() -> list[Token]:
    """The tokens of the recorded stream: `id`, `token`, `logprob`, `top_logprobs`."""
    lines = (CAPTURES / "llamacpp-completions-logprobs.sse").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    choices = [choice for event in events for choice in event["choices"] if choice["logprobs"]]
    return [token for choice in choices for token in choice["logprobs"]["content"]]


def usage(n_completion: int, **more: object) -> Json:
    n_prompt = len(PROMPT_IDS)
    return {
        "prompt_tokens": n_prompt,
        "total_tokens": n_prompt + n_completion,
        "completion_tokens": n_completion,
        **more,
    }


def legacy(tokens: Sequence[Token], offset: int, name: Callable[[Token], str], *, offsets: bool = True) -> Json:
    """`logprobs` of a completion: four lists side by side; SGLang gives no offsets."""
    starts = [offset + sum(len(name(token)) for token in tokens[:i]) for i in range(len(tokens))]
    return {
        "text_offset": starts if offsets else [-1] * len(tokens),
        "token_logprobs": [token["logprob"] for token in tokens],
        "tokens": [name(token) for token in tokens],
        "top_logprobs": [{name(top): top["logprob"] for top in token["top_logprobs"]} for token in tokens],
    }


def content(tokens: Sequence[Token]) -> Json:
    """`logprobs` of a chat message."""
    keys = ("token", "logprob", "bytes")
    return {
        "content": [
            {
                **{k: token[k] for k in keys},
                "top_logprobs": [{k: top[k] for k in keys} for top in token["top_logprobs"]],
            }
            for token in tokens
        ]
    }


def text_of(token: Token) -> str:
    return str(token["token"])


def id_of(token: Token) -> str:
    return f"token_id:{token['id']}"


def stream(events: Iterable[Json], *, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def chunks(tokens: Sequence[Token], sizes: Sequence[int]) -> list[Sequence[Token]]:
    """The tokens in messages of `sizes` tokens, the rest one by one."""
    found, at = [], 0
    for size in [*sizes, *[1] * (len(tokens) - sum(sizes))]:
        found.append(tokens[at : at + size])
        at += size
    return found


# ------------------------------------------------------------------------------------------------------------------ vLLM


def vllm_head(kind: str) -> Json:
    ids = {"text_completion": "cmpl", "chat.completion.chunk": "chatcmpl"}
    return {"id": f"{ids[kind]}-8d2c1f0e", "object": kind, "created": CREATED, "model": MODEL}


def vllm_completion(asked: Asked, tokens: Sequence[Token], sizes: Sequence[int] = ()) -> bytes:
    options = asked.get("stream_options", {})
    name = id_of if asked.get("return_tokens_as_token_ids") else text_of
    events, offset, n_sent = [], 0, 0
    parts = chunks(tokens, sizes)
    for part in parts:
        text = "".join(text_of(token) for token in part)
        n_sent += len(part)
        choice = {
            "index": 0,
            "text": text,
            "logprobs": legacy(part, offset, name) if "logprobs" in asked else None,
            "finish_reason": "length" if part is parts[-1] else None,
            "stop_reason": None,
            "prompt_token_ids": PROMPT_IDS if asked.get("return_token_ids") and part is parts[0] else None,
            "token_ids": [token["id"] for token in part] if asked.get("return_token_ids") else None,
        }
        event = {**vllm_head("text_completion"), "choices": [choice]}
        offset += len(text)
        events.append({**event, "usage": usage(n_sent)} if options.get("continuous_usage_stats") else event)
    if options.get("include_usage"):
        events.append({**vllm_head("text_completion"), "choices": [], "usage": usage(n_sent)})
    return stream(events)


def vllm_two(asked: Asked, tokens: Sequence[Token]) -> bytes:
    events = []
    for i, token in enumerate(tokens):
        for index in range(2):
            choice = {
                "index": index,
                "text": text_of(token),
                "logprobs": None,
                "finish_reason": "length" if i == len(tokens) - 1 else None,
                "stop_reason": None,
                "prompt_token_ids": PROMPT_IDS if i == 0 else None,
                "token_ids": [token["id"]],
            }
            events.append({**vllm_head("text_completion"), "choices": [choice]})
    events.append({**vllm_head("text_completion"), "choices": [], "usage": usage(2 * len(tokens))})
    return stream(events)


def vllm_chat(asked: Asked, tokens: Sequence[Token], n_reasoning: int = 0) -> bytes:
    ids, probs = asked.get("return_token_ids"), asked.get("logprobs")
    head = vllm_head("chat.completion.chunk")
    role = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    events: list[Json] = [{**head, "choices": [role], "prompt_token_ids": PROMPT_IDS if ids else None}]
    for i, token in enumerate(tokens):
        last = i == len(tokens) - 1
        choice = {
            "index": 0,
            "delta": {"reasoning" if i < n_reasoning else "content": text_of(token)},
            "logprobs": content([token]) if probs else None,
            "finish_reason": "length" if last else None,
            **({"stop_reason": None} if last else {}),
            "token_ids": [token["id"]] if ids else None,
        }
        events.append({**head, "choices": [choice]})
    details = {"completion_tokens_details": {"reasoning_tokens": n_reasoning}} if n_reasoning else {}
    events.append({**head, "choices": [], "usage": usage(len(tokens), **details)})
    return stream(events)


def vllm_error_inside(asked: Asked, tokens: Sequence[Token]) -> bytes:
    choice = {"index": 0, "text": text_of(tokens[0]), "logprobs": None, "finish_reason": None, "stop_reason": None}
    whole = {**choice, "prompt_token_ids": None, "token_ids": None}
    error = {"message": "Internal server error", "type": "InternalServerError", "param": None, "code": 500}
    return stream([{**vllm_head("text_completion"), "choices": [whole]}, {"error": error}])


def vllm_refusal(message: str, kind: str, parameter: str | None, code: int) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": parameter, "code": code}}).encode()


# ---------------------------------------------------------------------------------------------------------------- SGLang

SGLANG_ID = "4b0f3a9de27145c2"


def sglang_completion(asked: Asked, tokens: Sequence[Token], sizes: Sequence[int] = ()) -> bytes:
    head = {"id": SGLANG_ID, "object": "text_completion", "created": CREATED, "model": MODEL}
    events: list[Json] = []
    parts = chunks(tokens, sizes)
    for part in parts:
        choice: Json = {
            "index": 0,
            "text": "".join(text_of(token) for token in part),
            "logprobs": legacy(part, 0, text_of, offsets=False) if "logprobs" in asked else None,
            "finish_reason": "length" if part is parts[-1] else None,
            "matched_stop": None,
        }
        if asked.get("return_token_ids"):
            choice["token_ids"] = [token["id"] for token in part]
            if part is parts[0]:
                choice["prompt_token_ids"] = PROMPT_IDS
        events.append({**head, "choices": [choice], "usage": None})
    events.append({**head, "choices": [], "usage": usage(len(tokens), reasoning_tokens=0)})
    return stream(events)


def sglang_chat(asked: Asked, tokens: Sequence[Token], n_reasoning: int = 0) -> bytes:
    head = {"id": SGLANG_ID, "object": "chat.completion.chunk", "created": CREATED, "model": MODEL}

    def event(delta: Json, logprobs: Json | None = None, finish: str | None = None) -> Json:
        whole = {"role": None, "content": None, "reasoning_content": None, "tool_calls": None, **delta}
        choice = {"index": 0, "delta": whole, "logprobs": logprobs, "finish_reason": finish, "matched_stop": None}
        return {**head, "choices": [choice], "usage": None}

    events = [event({"role": "assistant", "content": ""})]
    for i, token in enumerate(tokens):
        key = "reasoning_content" if i < n_reasoning else "content"
        # What a chat message reasons comes without its log-probabilities.
        told = content([token]) if asked.get("logprobs") and i >= n_reasoning else None
        events.append(event({key: text_of(token)}, told))
    events.append(event({}, finish="length"))
    details = {"prompt_tokens_details": None, "reasoning_tokens": n_reasoning}
    events.append({**head, "choices": [], "usage": usage(len(tokens), **details)})
    return stream(events)


def sglang_error_inside(asked: Asked, tokens: Sequence[Token]) -> bytes:
    head = {"id": SGLANG_ID, "object": "text_completion", "created": CREATED, "model": MODEL}
    choice = {"index": 0, "text": text_of(tokens[0]), "logprobs": None, "finish_reason": None, "matched_stop": None}
    error = {"object": "error", "message": "Generation aborted.", "type": "INTERNAL_SERVER_ERROR", "param": None}
    return stream([{**head, "choices": [choice], "usage": None}, {"error": {**error, "code": 500}}])


def sglang_refusal(message: str, code: int) -> bytes:
    error = {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": code}
    return json.dumps(error).encode()


def captures(tokens: Sequence[Token]) -> dict[str, tuple[str, int, Asked, bytes]]:
    """Of each file its source, its status, what would have been asked, and its bytes."""
    usage_asked = {"stream_options": {"include_usage": True}}
    both = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    plain = completion(MODEL, **usage_asked)
    rich = completion(MODEL, logprobs=3, return_token_ids=True, **both)
    ids = completion(MODEL, return_token_ids=True, **usage_asked)
    named = completion(MODEL, logprobs=3, return_tokens_as_token_ids=True, **usage_asked)
    two = completion(MODEL, n=2, max_tokens=3, return_token_ids=True, **usage_asked)
    talk = chat(MODEL, logprobs=True, top_logprobs=3, return_token_ids=True, **usage_asked)
    thinks = chat(MODEL, **usage_asked)
    reasons = chat(MODEL, logprobs=True, top_logprobs=3, **usage_asked)
    few = tokens[:6]
    other, wrong = completion("nothing/here"), completion(MODEL, logprobs="x")
    missing = vllm_refusal("The model `nothing/here` does not exist.", "NotFoundError", "model", 404)
    refused = vllm_refusal("`logprobs` must be an integer.", "BadRequestError", "logprobs", 400)
    return {
        "vllm-completions.sse": (VLLM_COMPLETION, 200, plain, vllm_completion(plain, tokens)),
        "vllm-completions-rich.sse": (VLLM_COMPLETION, 200, rich, vllm_completion(rich, tokens)),
        "vllm-completions-several.sse": (VLLM_COMPLETION, 200, rich, vllm_completion(rich, tokens, (1, 3, 2))),
        "vllm-completions-token-names.sse": (VLLM_COMPLETION, 200, named, vllm_completion(named, tokens)),
        "vllm-completions-two.sse": (VLLM_COMPLETION, 200, two, vllm_two(two, tokens[:3])),
        "vllm-completions-error-inside.sse": (VLLM_COMPLETION, 200, plain, vllm_error_inside(plain, tokens)),
        "vllm-chat.sse": (VLLM_CHAT, 200, talk, vllm_chat(talk, few)),
        "vllm-chat-reasoning.sse": (VLLM_CHAT, 200, thinks, vllm_chat(thinks, few, n_reasoning=2)),
        "vllm-completions-other-model.json": (VLLM_COMPLETION, 404, other, missing),
        "vllm-completions-wrong-type.json": (VLLM_COMPLETION, 400, wrong, refused),
        "sglang-completions.sse": (SGLANG_COMPLETION, 200, named, sglang_completion(named, tokens)),
        "sglang-completions-ids.sse": (SGLANG_COMPLETION, 200, ids, sglang_completion(ids, tokens, (1, 4))),
        "sglang-completions-error-inside.sse": (SGLANG_COMPLETION, 200, plain, sglang_error_inside(plain, tokens)),
        "sglang-chat.sse": (SGLANG_CHAT, 200, reasons, sglang_chat(reasons, few)),
        "sglang-chat-reasoning.sse": (SGLANG_CHAT, 200, reasons, sglang_chat(reasons, few, n_reasoning=2)),
        "sglang-completions-empty.json": (
            SGLANG_COMPLETION,
            400,
            completion(MODEL, ""),
            sglang_refusal("Prompt cannot be empty", 400),
        ),
    }


def main() -> None:
    index_path = CAPTURES / "index.json"
    index = json.loads(index_path.read_text(encoding="utf-8"))
    for file, (source, status, asked, body) in captures(said()).items():
        (CAPTURES / file).write_bytes(body)
        index[file] = {
            "server": file.partition("-")[0],
            "version": None,
            "origin": f"documented: {source}",
            "path": "/v1/chat/completions" if asked.get("messages") == MESSAGES else "/v1/completions",
            "status": status,
            "media": "text/event-stream" if file.endswith(".sse") else "application/json",
            "request": asked,
        }
    text = json.dumps(dict(sorted(index.items())), indent=1, ensure_ascii=False)
    index_path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
