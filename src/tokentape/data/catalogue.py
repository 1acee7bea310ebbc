"""Every table of the file with every column, for people: what the reference page is made from.

The columns of the two series are those of :mod:`tokentape.data.schema`; here is the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokentape.data.schema import (
    CONTROLLED_SINCE,
    EFFECT_COLUMNS,
    EXCHANGE_COLUMNS,
    EXPLAINED_SINCE,
    READ_SINCE,
    SERVED_SINCE,
    STEP_COLUMNS,
    TOKEN_COLUMNS,
    Column,
)

__all__ = ["TABLES", "VIEWS", "Table"]


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the file. ``key`` names the columns that tell its rows apart, ``since`` the first schema version with it."""

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    since: int = 1


def _always(name: str, dtype: str, meaning: str, unit: str = "") -> Column:
    return Column(name, dtype, unit, meaning, nullable=False)


def _maybe(name: str, dtype: str, meaning: str, unit: str = "") -> Column:
    return Column(name, dtype, unit, meaning)


TABLES: tuple[Table, ...] = (
    Table(
        "tape",
        "Facts about the recording: `created_utc`, `finished_utc`, `state` (`recording`, `complete`, `partial`), "
        "`tokentape_version`, `pid` of the recorder, `fingerprint` of the Setting, and the recorder's notes "
        "(`origin_unix_ns`, `clock`, `probes`, ...).",
        ("key",),
        (_always("key", "text", "name of the fact"), _always("value", "json", "the fact")),
    ),
    Table(
        "setting",
        "What must be equal for two runs to be comparable: model, engine, machine.",
        ("name",),
        (
            _always("name", "text", "name of the fact"),
            _always("value", "json", "the fact; `null` where it could not be had"),
            _always("compared", "u1", "1 if the fact decides whether runs are comparable and is in the fingerprint", "bool"),
        ),
    ),
    Table(
        "run",
        "One call of a source: one time axis, shared by the traces of its batch.",
        ("number",),
        (
            _always("number", "i8", "number of the run, from 0"),
            _maybe("start_ns", "i8", "host clock when the request was handed over, since the tape's origin", "ns"),
            _always("options", "json", "generation options that held"),
            _maybe("seed", "i8", "seed of the random generators; null where none was asked for"),
            _always("n_traces", "i8", "sequences in the batch", "sequences"),
            _maybe("n_steps", "i8", "steps of the run; null until it is packed", "steps"),
            _always("finished", "u1", "1 when the run has ended", "bool"),
            _always("packed", "u1", "1 when its rows are also in the table `packed`", "bool"),
        ),
    ),
    Table(
        "trace",
        "One sequence: a prompt and what followed.",
        ("number",),
        (
            _always("number", "i8", "number of the trace, from 0"),
            _always("run", "i8", "number of its run"),
            _always("row", "i8", "its row in the run's batch"),
            _maybe("n_prompt", "i8", "tokens of the prompt, padding excluded: the position of the first token after it", "tokens"),
            _maybe("prompt_text", "text", "the prompt; null where only ids were given, or no text was to be kept"),
            _maybe("prompt_ids", "json", "vocabulary ids of the prompt, without padding"),
            _maybe("finish_reason", "text", "why it ended; null where recording stopped before"),
            _maybe("n_tokens", "i8", "its rows in the table `token`, overshoot included; null until the run is packed", "tokens"),
        ),
    ),
    Table(
        "step",
        "The time axis: one row for each forward pass, or for each chunk of a served stream.",
        ("run", "index"),
        (
            _always("run", "i8", "number of the run"),
            *STEP_COLUMNS,
            _always("kind_name", "text", "the word for `kind`; computed by SQLite, not stored"),
        ),
    ),
    Table(
        "token",
        "The symbol axis: one row for each token. A step may give none, one or several.",
        ("trace", "position"),
        (
            _always("trace", "i8", "number of the trace"),
            *TOKEN_COLUMNS,
            _maybe("text", "text", "the token's text; null where its bytes alone are no UTF-8, as when a character spans tokens"),
            _maybe("raw", "blob", "the token's bytes, only where `text` is null; both are null where no text was to be kept"),
            _maybe("candidates", "json", "`[[id, logprob], ...]`: the best tokens of the model's own distribution, best first"),
            _maybe("bytes", "blob", "the token's bytes in either case; computed by SQLite, not stored"),
            _maybe("channel_name", "text", "the word for `channel`; computed by SQLite, not stored"),
        ),
    ),
    Table(
        "piece",
        "The entries of the vocabulary that occur in the tape: in prompts, tokens and candidates.",
        ("id",),
        (
            _always("id", "i8", "vocabulary id"),
            _maybe("token", "text", "the vocabulary's own string, such as `Ġcat`"),
            _always("bytes", "blob", "what it stands for in text"),
            _always("special", "u1", "1 for control tokens, such as the end of text", "bool"),
        ),
    ),
    Table(
        "packed",
        "The rows of finished runs once more, as numpy record arrays that open a hundred times faster. An index over the rows: "
        "what it says, they say.",
        ("series", "owner", "part"),
        (
            _always("series", "text", "`step` or `token`"),
            _always("owner", "i8", "number of the run (of steps) or trace (of tokens)"),
            _always("part", "i8", "number of the part, from 0; a part has at most 8,192 rows"),
            _always("n", "i8", "rows of the part", "rows"),
            _always("records_crc32", "i8", "CRC-32 of `records`, begun with the owner and part as text"),
            _always("candidates_crc32", "i8", "CRC-32 of `candidates`, likewise"),
            _always("bytes_crc32", "i8", "CRC-32 of `bytes`, likewise"),
            _always("sha256", "blob", "SHA-256 of the rows that the part was made from"),
            _always("records", "blob", "one record for each row, little-endian"),
            _always("candidates", "blob", "`(id, logprob)` records of all tokens, one after another"),
            _always("bytes", "blob", "bytes of all tokens, one after another"),
        ),
    ),
    Table(
        "block",
        "The steps and tokens of runs under way, many in one row; they become rows of `step` and `token` when the tape is closed. "
        "Empty in a finished tape.",
        ("number",),
        (
            _always("number", "i8", "number of the block"),
            _always("run", "i8", "number of the run"),
            _always("first_step", "i8", "index of its first step"),
            _always("n_steps", "i8", "steps of the block", "steps"),
            _always("crc32", "i8", "CRC-32 of the four blobs, begun with the run and the first step as text"),
            _always("steps", "blob", "columns of the steps, in the layout of `tokentape/data/blocks.py`"),
            _always("tokens", "blob", "columns of their tokens, likewise"),
            _always("candidates", "blob", "`(id, logprob)` records of all tokens, one after another"),
            _always("bytes", "blob", "bytes of all tokens, one after another"),
        ),
        since=2,
    ),
    Table(
        "explanation",
        "What was found by playing a trace again: which sources a target rests on. Its figures are in `relevance`. An answer to a "
        "question that was asked before takes the place of the older one.",
        ("number",),
        (
            _always("number", "i8", "number of the explanation"),
            _always("trace", "i8", "number of the trace"),
            _always("method", "text", "name of the method"),
            _always("options", "json", "options of the method that held"),
            _always("kind", "text", "what is explained: `logit` (less the vocabulary's mean), `foil` (less the foil's), `logprob`"),
            _always("together", "u1", "1 if the targets are summed to one row, 0 if each has its own", "bool"),
            _always("targets", "json", "positions of the targets, ascending", "positions"),
            _always("target_ids", "json", "vocabulary ids of the tokens there"),
            _maybe("foil_ids", "json", "what each target is explained against; null unless `kind` is `foil`"),
            _always("sources", "json", "`[[start, stop, label, kind], ...]`: half-open positions, text, `token`, `word` and so on"),
            _always("replay_check", "json", "replay and tape: `largest`, `median` (nats), `n`, `tolerance`, `passed`, `reason`"),
            _always("passes", "json", "sequences that went through the model, `forward` and `backward`"),
            _maybe("cpu_ns", "i8", "processor time that it took", "ns"),
            _always("made", "json", "with what: versions, model, hash of its weights"),
            _always("notes", "json", "what the method found beside the figures: steps, completeness, what it fell back to"),
        ),
        since=EXPLAINED_SINCE,
    ),
    Table(
        "relevance",
        "The figures of the explanations, one row for each target, or one for all of them together. The view `relevance_cell` has "
        "a row for each source of each of these: `explanation`, `trace`, `method`, `row`, `target` (a position), `source`, "
        "`start`, `stop`, `label`, `relevance`.",
        ("explanation", "row"),
        (
            _always("explanation", "i8", "number of the explanation"),
            _always("row", "i8", "number of the row, from 0: the place of its target in `targets`"),
            _always("value", "f8", "what is explained, as the replay computed it (`logprob`: nats)", "logits"),
            _always("ledger", "json", "what `value` is made of, by name; empty where the method keeps no books"),
            _always("relevance", "json", "a number for each source, in the unit of `value`; null where the target cannot see it"),
        ),
        since=EXPLAINED_SINCE,
    ),
    Table(
        "reading",
        "What was read off the model by playing a trace again: where it looked, what its layers would have said, what they added. "
        "An answer that says all that an older one of the same kind and trace says takes its place.",
        ("number",),
        (
            _always("number", "i8", "number of the reading"),
            _always("trace", "i8", "number of the trace"),
            _always("kind", "text", "`attention`, `lens` (the logit lens) or `direct` (direct logit attribution)"),
            _always("question", "json", "what was asked: `positions`; `top_k` and `heads`; `of`, `against` and `together`"),
            _always("made", "json", "with what: versions, model, hash of its weights"),
            _always("body", "blob", "the answer: JSON, deflated (zlib); `json.loads(zlib.decompress(body))` in Python"),
        ),
        since=READ_SINCE,
    ),
    Table(
        "rule",
        "The rules of a run, in the order in which they were applied: processors of transformers, grammar, guidance, guard.",
        ("run", "number"),
        (
            _always("run", "i8", "number of the run"),
            _always("number", "i8", "number of the rule, from 0"),
            _always("name", "text", "what it is: `grammar`, `guidance`, `guard`, or the class of a processor"),
            _always("description", "json", "what it was made from: strength, source, options"),
        ),
        since=CONTROLLED_SINCE,
    ),
    Table(
        "effect",
        "What each rule did to the choice of each token, measured from the distribution that it was given to the one that it made.",
        ("trace", "position", "rule"),
        (_always("trace", "i8", "number of the trace"), *EFFECT_COLUMNS),
        since=CONTROLLED_SINCE,
    ),
    Table(
        "decision",
        "What a guard decided. The bytes are those of the tokens of the trace, one after another.",
        ("trace", "number"),
        (
            _always("trace", "i8", "number of the trace"),
            _always("number", "i8", "number of the decision, from 0"),
            _always("position", "i8", "position of the token at which it was decided", "positions"),
            _always("rule", "i8", "number of the rule"),
            _always("action", "text", "`stop`, `redact` or `resample`"),
            _always("start", "i8", "first byte of what it is about", "bytes"),
            _always("stop", "i8", "first byte after it; the same as `start` where a token was not said at all", "bytes"),
            _always("reason", "text", "what was found, without quoting it"),
            _always("shown", "text", "what is shown in its place"),
        ),
        since=CONTROLLED_SINCE,
    ),
    Table(
        "outcome",
        "How a constraint ended for a trace.",
        ("trace", "rule"),
        (
            _always("trace", "i8", "number of the trace"),
            _always("rule", "i8", "number of the rule"),
            _always("name", "text", "`complete`, `unfinished` or `cornered`"),
            _maybe("valid", "u1", "whether a validator, not the engine, found it valid; null where it was not asked", "bool"),
            _maybe("why", "text", "the validator's complaint, or what was missing"),
        ),
        since=CONTROLLED_SINCE,
    ),
    Table(
        "exchange",
        "What passed between a client and a server for one run: when, how it ended, and what the server says of it. A request that "
        "was sent again is two runs.",
        ("run",),
        EXCHANGE_COLUMNS,
        since=SERVED_SINCE,
    ),
    Table(
        "scrape",
        "Readings of gauges and counters while requests were under way: a server's `/metrics`, and the client's own state.",
        ("number",),
        (
            _always("number", "i8", "number of the reading, in the order in which they were taken"),
            _always("source", "text", "`server`, or `client` with the number of its process"),
            _always("began_ns", "i8", "host clock when it was asked for, since the tape's origin", "ns"),
            _always("ended_ns", "i8", "host clock when the answer was there", "ns"),
            _always("body", "blob", "values by name: JSON, deflated (zlib)"),
        ),
        since=SERVED_SINCE,
    ),
    Table(
        "manifest",
        "Written when the tape is finished: one hash for each table, so that an altered letter is found.",
        ("name",),
        (
            _always("name", "text", "name of the table"),
            _always("sha256", "text", "SHA-256 of its definition and rows (`step`, `token`, `packed`, `block`: its definition)"),
        ),
    ),
    Table(
        "migration",
        "The steps that made the tables what they are.",
        ("number",),
        (
            _always("number", "i8", "the schema version after the step"),
            _always("name", "text", "name of the step"),
            _always("applied_utc", "text", "when"),
            _always("tokentape_version", "text", "by which version of tokentape"),
        ),
    ),
)  # fmt: skip
"""Every table that tokentape knows; others in the same file are left alone."""

VIEWS = {"relevance_cell": EXPLAINED_SINCE}
"""Views for people with another tool, and the first schema version that has them. Nothing here reads them: a tape is opened with
an untrusted schema, under which SQLite (3.40, at least) refuses its own JSON functions in a view."""
