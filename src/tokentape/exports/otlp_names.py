"""The names of OpenTelemetry's semantic conventions for generative AI, in one place: they are still in development.

Read from ``open-telemetry/semantic-conventions-genai`` (``docs/gen-ai/client-inference.md``), to which the conventions
moved from ``open-telemetry/semantic-conventions`` in 2026. Since 1.36 ``gen_ai.system`` is called
``gen_ai.provider.name``, and content is ``gen_ai.input.messages`` and ``gen_ai.output.messages``. A name that the
conventions lack begins with ``tokentape.``
"""

from __future__ import annotations

__all__ = ["CONVENTIONS", "FINISH_REASONS", "REQUEST_OPTIONS", "SAMPLING_OPTIONS"]

CONVENTIONS = "gen-ai 0.1.0"
"""The version of the conventions that these names are from."""

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_SEED = "gen_ai.request.seed"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
"""Seconds from the request to the first chunk."""
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
CONVERSATION_ID = "gen_ai.conversation.id"
USAGE_CACHE_READ = "gen_ai.usage.cache_read.input_tokens"
USAGE_REASONING = "gen_ai.usage.reasoning.output_tokens"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
HTTP_STATUS = "http.response.status_code"
HTTP_RESEND = "http.request.resend_count"
USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
ERROR_TYPE = "error.type"
SERVICE_NAME = "service.name"
SERVICE_VERSION = "service.version"

TEXT_COMPLETION = "text_completion"
"""The operation of a model that continues a text."""

REQUEST_OPTIONS: dict[str, tuple[str, type]] = {
    "max_new_tokens": ("gen_ai.request.max_tokens", int),
    "max_tokens": ("gen_ai.request.max_tokens", int),
    "presence_penalty": ("gen_ai.request.presence_penalty", float),
    "frequency_penalty": ("gen_ai.request.frequency_penalty", float),
}
"""Options of a run, what they are called, and the type that they have there."""

SAMPLING_OPTIONS: dict[str, tuple[str, type]] = {
    "temperature": ("gen_ai.request.temperature", float),
    "top_p": ("gen_ai.request.top_p", float),
    "top_k": ("gen_ai.request.top_k", int),
}
"""The same for those that only hold where tokens are drawn."""

STOP_OPTIONS: dict[str, str] = {
    "stop_strings": "gen_ai.request.stop_sequences",
    "stop": "gen_ai.request.stop_sequences",
}

FINISH_REASONS: dict[str | None, str] = {
    "stop": "stop",
    "stop_string": "stop",
    "criteria": "stop",
    "grammar": "stop",
    "length": "length",
    "guard": "content_filter",
    "content_filter": "content_filter",
    "tool_calls": "tool_call",
    "cornered": "error",
    "interrupted": "error",
    "error": "error",
    None: "error",
}
"""Why a trace ended, in the words of the conventions; a reason that is not here is said as it is."""

ERRORS: dict[str | None, str] = {"cornered": "cornered", "interrupted": "interrupted", "error": "_OTHER"}
"""The ``error.type`` of the reasons that are errors."""

# what the conventions have no name for
TRACE = "tokentape.trace"
RUN = "tokentape.run"
ROW = "tokentape.row"
BATCH = "tokentape.batch"
STEPS = "tokentape.steps"
TOKENS = "tokentape.tokens"
FINISH_REASON = "tokentape.finish_reason"
LABEL = "tokentape.label"
FAULT = "tokentape.fault"
SCHEDULE_DELAY = "tokentape.schedule_delay"
TTFB = "tokentape.time_to_first_byte"
CONNECTING = "tokentape.connect_time"
"""Seconds, as the conventions have times."""
FINGERPRINT = "tokentape.fingerprint"
CONVENTIONS_NAME = "tokentape.conventions"
TOKEN_EVENT = "tokentape.token"
TOKEN_PREFIX = "tokentape.token."
