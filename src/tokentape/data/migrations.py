"""The tables of a tape, as a list of named steps: a new tape and a migrated one go through the same list.

A step is never edited once a version with it is out: a new table or column is a new step at the end, with its columns in
:mod:`tokentape.data.schema`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime

from tokentape._version import __version__
from tokentape.data.blocks import lay_out
from tokentape.data.schema import APPLICATION_ID, GROWN_SINCE, LAID_OUT_SINCE
from tokentape.errors import UsageError

__all__ = ["MIGRATIONS", "apply_missing", "migrate"]

FIRST_TABLES = """
create table tape (
  key text primary key not null,
  value text not null              -- JSON
) without rowid;

create table setting (
  name text primary key not null,
  value text not null,             -- JSON
  compared integer not null check (compared in (0, 1))
) without rowid;

create table run (
  number integer primary key,
  start_ns integer,
  options text not null,           -- JSON
  seed integer,
  n_traces integer not null,
  n_steps integer,                 -- null until finished
  finished integer not null default 0 check (finished in (0, 1)),
  packed integer not null default 0 check (packed in (0, 1))
);

create table trace (
  number integer primary key,
  run integer not null references run (number),
  row integer not null,
  n_prompt integer,
  prompt_text text,
  prompt_ids text,                 -- JSON
  finish_reason text,
  n_tokens integer                 -- overshoot included; null until finished
);

create index trace_of_run on trace (run);

create table piece (
  id integer primary key,
  token text,
  bytes blob not null,
  special integer not null check (special in (0, 1))
);

create table step (
  run integer not null references run (number),
  "index" integer not null check (typeof("index") = 'integer' and "index" >= 0),
  kind integer not null check (kind in (0, 1, 2)),
  batch integer not null check (typeof(batch) = 'integer' and batch between -2147483648 and 2147483647),
  context integer check (typeof(context) in ('integer', 'null')),
  n_in integer check (typeof(n_in) in ('integer', 'null')),
  n_out integer not null check (typeof(n_out) = 'integer' and n_out between -2147483648 and 2147483647),
  start_ns integer not null check (typeof(start_ns) = 'integer'),
  end_ns integer not null check (typeof(end_ns) = 'integer'),
  forward_ns integer check (typeof(forward_ns) in ('integer', 'null')),
  device_ns integer check (typeof(device_ns) in ('integer', 'null')),
  cpu_ns integer check (typeof(cpu_ns) in ('integer', 'null')),
  switches integer check (switches is null or (typeof(switches) = 'integer' and switches between -2147483648 and 2147483647)),
  gc_count integer check (gc_count is null or (typeof(gc_count) = 'integer' and gc_count between -2147483648 and 2147483647)),
  gc_ns integer check (typeof(gc_ns) in ('integer', 'null')),
  cache_bytes integer check (typeof(cache_bytes) in ('integer', 'null')),
  rss_bytes integer check (typeof(rss_bytes) in ('integer', 'null')),
  device_bytes integer check (typeof(device_bytes) in ('integer', 'null')),
  kind_name text generated always as (case kind when 0 then 'prefill' when 1 then 'decode' when 2 then 'chunk' end) virtual,
  primary key (run, "index")
) without rowid;

create table token (
  trace integer not null references trace (number),
  position integer not null check (typeof(position) = 'integer' and position >= 0),
  step integer not null check (typeof(step) = 'integer' and step >= 0),
  id integer check (typeof(id) in ('integer', 'null')),
  logprob real check (typeof(logprob) in ('real', 'null')),
  entropy real check (typeof(entropy) in ('real', 'null')),
  rank integer check (rank is null or (typeof(rank) = 'integer' and rank between -2147483648 and 2147483647)),
  rules_logprob real check (typeof(rules_logprob) in ('real', 'null')),
  forced integer not null check (forced in (0, 1)),
  overshoot integer not null check (overshoot in (0, 1)),
  text text check (typeof(text) in ('text', 'null')),
  raw blob check (typeof(raw) = 'null' or (typeof(raw) = 'blob' and text is null)),
  candidates text check (typeof(candidates) in ('text', 'null')),
  bytes blob generated always as (coalesce(raw, cast(text as blob))) virtual,
  primary key (trace, position)
) without rowid;

create table packed (
  series text not null check (series in ('step', 'token')),
  owner integer not null,          -- the run of steps, the trace of tokens
  part integer not null,
  n integer not null,
  records_crc32 integer not null,
  candidates_crc32 integer not null,
  bytes_crc32 integer not null,
  sha256 blob not null,            -- of the rows that the part was made from
  records blob not null,           -- n records, little-endian, columns in the order of the table, then the nulls
  candidates blob not null,        -- (id, logprob) records, one after another
  bytes blob not null,             -- the bytes of the tokens, one after another
  primary key (series, owner, part)
);

create table manifest (
  name text primary key not null,
  sha256 text not null             -- of the table's definition and rows
) without rowid;
"""

BLOCKS = """
create table block (
  number integer primary key,
  run integer not null references run (number),
  first_step integer not null,
  n_steps integer not null,
  crc32 integer not null,
  steps blob not null,             -- columns, in the layout of data/blocks.py
  tokens blob not null,
  candidates blob not null,
  bytes blob not null
);
"""

EXPLANATIONS = """
create table explanation (
  number integer primary key,
  trace integer not null references trace (number),
  method text not null,
  options text not null,           -- JSON
  kind text not null,
  together integer not null check (together in (0, 1)),
  targets text not null,           -- JSON, positions
  target_ids text not null,        -- JSON
  foil_ids text,                   -- JSON
  sources text not null,           -- JSON: [[start, stop, label, kind], ...]
  replay_check text not null,      -- JSON
  passes text not null,            -- JSON
  cpu_ns integer check (typeof(cpu_ns) in ('integer', 'null')),
  made text not null,              -- JSON
  notes text not null              -- JSON
);

create table relevance (
  explanation integer not null references explanation (number),
  row integer not null check (typeof(row) = 'integer' and row >= 0),
  value real not null check (typeof(value) = 'real'),
  ledger text not null,            -- JSON
  relevance text not null,         -- JSON: a number or null for each source
  primary key (explanation, row)
);

create view relevance_cell as
select
  r.explanation, e.trace, e.method, r.row,
  case e.together when 0 then json_extract(e.targets, '$[' || r.row || ']') end as target,
  cell.key as source,
  json_extract(e.sources, '$[' || cell.key || '][0]') as start,
  json_extract(e.sources, '$[' || cell.key || '][1]') as stop,
  json_extract(e.sources, '$[' || cell.key || '][2]') as label,
  cell.value as relevance
from relevance as r join explanation as e on e.number = r.explanation join json_each(r.relevance) as cell;
"""

CONTROL = """
alter table step add column rules_ns integer check (typeof(rules_ns) in ('integer', 'null'));
alter table step add column dropped integer check (typeof(dropped) in ('integer', 'null'));
alter table token add column wanted integer check (typeof(wanted) in ('integer', 'null'));
alter table token add column allowed integer
  check (allowed is null or (typeof(allowed) = 'integer' and allowed between -2147483648 and 2147483647));
alter table token add column removed real check (typeof(removed) in ('real', 'null'));

create table rule (
  run integer not null references run (number),
  number integer not null check (typeof(number) = 'integer' and number >= 0),
  name text not null,
  description text not null,       -- JSON
  primary key (run, number)
) without rowid;

create table effect (
  trace integer not null references trace (number),
  position integer not null check (typeof(position) = 'integer' and position >= 0),
  rule integer not null check (typeof(rule) = 'integer' and rule between 0 and 2147483647),
  allowed integer
    check (allowed is null or (typeof(allowed) = 'integer' and allowed between -2147483648 and 2147483647)),
  removed real check (typeof(removed) in ('real', 'null')),
  divergence real check (typeof(divergence) in ('real', 'null')),
  rule_ns integer check (typeof(rule_ns) in ('integer', 'null')),
  primary key (trace, position, rule)
) without rowid;

create table decision (
  trace integer not null references trace (number),
  number integer not null check (typeof(number) = 'integer' and number >= 0),
  position integer not null check (typeof(position) = 'integer' and position >= 0),
  rule integer not null check (typeof(rule) = 'integer' and rule >= 0),
  action text not null,
  start integer not null check (typeof(start) = 'integer' and start >= 0),
  stop integer not null check (typeof(stop) = 'integer' and stop >= start),
  reason text not null,
  shown text not null,
  primary key (trace, number)
) without rowid;

create table outcome (
  trace integer not null references trace (number),
  rule integer not null check (typeof(rule) = 'integer' and rule >= 0),
  name text not null,
  valid integer check (valid in (0, 1)),
  why text,
  primary key (trace, rule)
) without rowid;
"""

READINGS = """
create table reading (
  number integer primary key,
  trace integer not null references trace (number),
  kind text not null,
  question text not null,          -- JSON
  made text not null,              -- JSON
  body blob not null check (typeof(body) = 'blob')  -- JSON, deflated
);
"""

SERVED = """
alter table step add column read_ns integer check (typeof(read_ns) in ('integer', 'null'));
alter table step add column parsed_ns integer check (typeof(parsed_ns) in ('integer', 'null'));
alter table token add column channel integer check (channel is null or channel in (0, 1, 2));
alter table token add column channel_name text
  generated always as (case channel when 0 then 'text' when 1 then 'reasoning' when 2 then 'tool' end) virtual;

create table exchange (
  run integer primary key references run (number),
  scheduled_ns integer check (typeof(scheduled_ns) in ('integer', 'null')),
  connect_ns integer check (typeof(connect_ns) in ('integer', 'null')),
  connected_ns integer check (typeof(connected_ns) in ('integer', 'null')),
  sent_ns integer check (typeof(sent_ns) in ('integer', 'null')),
  first_byte_ns integer check (typeof(first_byte_ns) in ('integer', 'null')),
  ended_ns integer check (typeof(ended_ns) in ('integer', 'null')),
  status integer check (typeof(status) in ('integer', 'null')),
  attempt integer not null check (typeof(attempt) = 'integer' and attempt >= 1),
  retry_of integer check (typeof(retry_of) in ('integer', 'null')),
  label text check (label in ('exact', 'counted', 'coarse', 'ends')),
  fault text,
  error text,
  stamps text check (stamps in ('kernel', 'read')),
  finish text,
  model text,
  request_id text,
  n_prompt integer check (typeof(n_prompt) in ('integer', 'null')),
  n_completion integer check (typeof(n_completion) in ('integer', 'null')),
  n_reasoning integer check (typeof(n_reasoning) in ('integer', 'null')),
  n_cached integer check (typeof(n_cached) in ('integer', 'null')),
  usage text,                      -- JSON
  server text,                     -- JSON
  process integer check (typeof(process) in ('integer', 'null')),
  conversation text,
  turn integer check (typeof(turn) in ('integer', 'null'))
);

create table scrape (
  number integer primary key,
  source text not null,
  began_ns integer not null check (typeof(began_ns) = 'integer'),
  ended_ns integer not null check (typeof(ended_ns) = 'integer' and ended_ns >= began_ns),
  body blob not null check (typeof(body) = 'blob')  -- JSON, deflated
);
"""

MIGRATIONS: tuple[tuple[str, str], ...] = (
    ("first_tables", FIRST_TABLES),
    ("blocks", BLOCKS),
    ("explanations", EXPLANATIONS),
    ("control", CONTROL),
    ("readings", READINGS),
    ("served", SERVED),
)
"""Named steps; the tape's ``user_version`` is the number of those applied."""

LEDGER = """
create table if not exists migration (
  number integer primary key,
  name text not null,
  applied_utc text not null,
  tokentape_version text not null
);
"""


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the steps that the file lacks, all or none; ``connection`` is in autocommit mode."""
    connection.execute("begin immediate")
    try:
        apply_missing(connection)
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def apply_missing(connection: sqlite3.Connection) -> None:
    """Apply the steps that the file lacks, within the caller's transaction.

    Raises UsageError where another program has taken the name of a table, ValueError for a damaged block.
    """
    done = connection.execute("pragma user_version").fetchone()[0]
    for number, (name, sql) in enumerate(MIGRATIONS[done:], start=done + 1):
        for statement in (*_statements(LEDGER), *_statements(sql)):
            _execute(connection, statement)
        if (
            done and number <= LAID_OUT_SINCE
        ):  # packs have the layout that they were made under; closing makes them anew
            connection.execute("delete from packed")
            connection.execute("update run set packed = 0")
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        connection.execute("insert into migration values (?, ?, ?, ?)", (number, name, stamp, __version__))
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        connection.execute(f"pragma user_version = {number}")
    if GROWN_SINCE <= done < LAID_OUT_SINCE:  # what a recorder that stopped left in blocks has the layout of its time
        for (run,) in connection.execute("select distinct run from block order by run").fetchall():
            lay_out(connection, run, version=done)


def _execute(connection: sqlite3.Connection, statement: str) -> None:
    try:
        connection.execute(statement)
    except sqlite3.OperationalError as error:
        if "already exists" not in str(error):
            raise
        raise UsageError(
            "the tape cannot be brought up to date",
            why=f"{error}, and another program put it there",
            fix="give that one another name: alter table OLD rename to NEW",
        ) from error


def _statements(sql: str) -> Iterator[str]:
    """A script cut into its statements: ``executescript`` would commit whatever the caller had begun."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
