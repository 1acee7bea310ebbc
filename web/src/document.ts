// What the page is given: the document that `tokentape.views.page` makes of a tape. Every number is computed there.
// `null` is a value that is not available. Times are integers of nanoseconds, probabilities natural logarithms (nats).

export type Lang = "en" | "zh";
export type Values = (number | null)[];

/** A sentence: a key of the catalogue and what fills its places. Strings are shown as they are, numbers with separators. */
export interface Message {
  key: string;
  args?: Record<string, string | number | null | Message>;
}

/** What stands in the place of a part for which nothing was recorded: why, and the command that fills it. */
export interface Missing {
  missing: Message;
  /** Copyable; null where no command helps. */
  run: string | null;
}

export type Maybe<T> = T | Missing;
export type Present<T> = Exclude<T, Missing>;

export function isMissing<T extends object>(part: Maybe<T>): part is Missing {
  return "missing" in part;
}

/** A part that is there, else null. */
export const present = <T extends object>(part: Maybe<T> | null | undefined): T | null => (part && !isMissing(part) ? part : null);

/** What the byte budget left out, and the flag that brings it back. */
export interface Dropped {
  what: Message;
  bytes: number;
  flag: string;
}

export interface PageDocument {
  schema: 1;
  tokentape: string;
  title: string;
  /** The language asked for; null lets the browser decide. */
  lang: Lang | null;
  /** The page's part of the catalogue, by language. */
  words: Record<Lang, Record<string, string>>;
  tape: TapePart | null;
  compare: ComparePart | null;
  /** A law alone, in a notebook. */
  law: LawPart | null;
  dropped: Dropped[];
  /** Where the page is served: what it may ask of its server. null in a file. */
  live: Live | null;
  /** The tapes of a folder, on the page that lists them. */
  folder?: FolderPart;
}

export interface TapePart {
  /** The file's name. */
  name: string | null;
  state: "complete" | "partial" | "recording";
  /** Traces in the tape; `traces` may hold fewer. */
  n_traces: number;
  traces: Trace[];
  /** The steps of the runs of these traces. */
  runs: Run[];
  /** How vocabulary entries are drawn that stand alone (candidates, overruled tokens), by id. */
  pieces: Record<string, string>;
  overview: Overview;
  /** Of a tape of requests to a server. */
  requests?: RequestsPart;
  cost: Maybe<CostPart>;
  provenance: Provenance;
  /** What stands in the place of a comparison, for which there is nothing to compare with. */
  alone: Missing;
}

/** One sequence. A *place* is an index into its symbols, prompt included: place = prompt's tokens + index of the token. */
export interface Trace {
  number: number;
  run: number;
  row: number;
  finish: Message;
  guarded: boolean;
  /** Symbols of prompt and continuation, one a place. */
  symbols: Symbols;
  /** Places of the prompt: the place of the first generated token. */
  n_prompt: number;
  tokens: Tokens;
  /** Colours that a token can have; the page adds those that depend on what is selected. */
  measures: Measure[];
  distribution: Maybe<DistributionPart>;
  relevance: Maybe<RelevancePart>;
  attention: Maybe<AttentionPart>;
  layers: Maybe<LayersPart>;
}

/** Columns with one entry a place. */
export interface Symbols {
  ids: Values;
  /** Position in the sequence. */
  position: number[];
  /** What is drawn, escaped already: control and direction characters, bytes that make no character. */
  text: string[];
  /**
   * 1 where the token ends inside of a character, whose other bytes the next token has: the two are drawn as one. So is a prompt whose
   * text is known as a whole only: it stands with the last of its tokens, and the others have no bytes.
   */
  open: (0 | 1)[];
  /** Bytes as hexadecimal digits; null where they are not known. */
  hex: (string | null)[];
  /** 1 for control tokens such as the end of text. */
  special: (0 | 1)[];
}

/** Columns with one entry a generated token. */
export interface Tokens {
  step: number[];
  /** When the token was known, since the start of its run. */
  time_ns: Values;
  /** Time since the token before; of the first, the time to first token. */
  gap_ns: Values;
  logprob: Values;
  surprise: Values;
  entropy: Values;
  rank: Values;
  rules_logprob: Values;
  forced: (0 | 1)[];
  /** Id that was overruled. */
  wanted: Values;
  allowed: Values;
  removed: Values;
  /** The most likely tokens, best first. */
  candidate_ids: number[][];
  candidate_logprobs: number[][];
}

/** A column of the steps of one run. */
export interface Run {
  number: number;
  /** 0 prefill, 1 decode, 2 chunk. */
  kind: number[];
  context: Values;
  batch: number[];
  /** Start of the step since the start of the run. */
  start_ns: number[];
  /** Duration on the host's clock. */
  step_ns: number[];
  device_ns: Values;
  forward_ns: Values;
  rules_ns: Values;
  gc_ns: Values;
  pause_ns: Values;
  switches: Values;
  cache_bytes: Values;
  rss_bytes: Values;
  device_bytes: Values;
  time: Maybe<TimePart>;
}

/** A figure for each generated token, with the ends of its colour scale. */
export interface Measure {
  name: "latency" | "surprise" | "entropy" | "constraint" | "attention";
  unit: Unit;
  /** One a place. */
  values: Values;
  low: number;
  high: number;
  scale: "linear" | "log";
}

export type Unit = "ns" | "nats" | "bytes" | "tokens" | "share" | "count" | "logit" | "flops" | "";

/** A figure with where it comes from. `text` is how it is written, with its unit; null where there is none. */
export interface Figure {
  label: Message;
  text: string | null;
  value: number | null;
  unit: Unit;
  badge: "measured" | "modelled" | "unavailable";
  note: Message | null;
}

/** Where a link leads: a part, and what is selected there. */
export interface Link {
  part: PartName;
  trace?: number;
  place?: number;
}

export const PARTS = [
  "overview", "tokens", "time", "distribution", "attention", "layers", "cost", "compare", "provenance", "requests",
] as const;
export type PartName = (typeof PARTS)[number];

export interface Live {
  /** Path of the server-sent events; null where nothing changes. */
  events: string | null;
  /** What this document has, for the first question: the id of an event. */
  since: string;
  /** Path that explains on demand; null where no model is at hand. */
  explain: string | null;
  /** What a request that changes something says besides. */
  proof: string | null;
  /** Path of the folder's listing; null where one file is served. */
  folder: string | null;
}

/** What is new in a tape: `from` is the first entry of the columns that is replaced. */
export interface RowsEvent {
  state: TapePart["state"];
  run: Omit<Run, "time"> & { from: number };
  traces: { number: number; tokens: Tokens & { from: number }; symbols: Symbols & { from: number } }[];
  pieces: Record<string, string>;
}

/** The tapes of a folder that is served. */
export interface FolderPart {
  title: Message;
  caption: Message;
  tapes: FolderTape[];
}
export interface FolderTape {
  name: string;
  /** The name as it stands in an address. */
  link: string;
  state: TapePart["state"] | "unreadable";
  model: string | null;
  tokens: number | null;
  /** Tokens a second. */
  speed: number | null;
  created: string | null;
  /** The prompt, or what is wrong with the file. */
  prompt: string | null;
}

// What each part holds. Whoever builds a part owns its interface here.

export interface Overview {
  verdict: Message;
  figures: Figure[];
  findings: { text: Message; link: Link }[];
  /** The command that made the tape; null where no command did. */
  command: string | null;
}

/** Columns of one entry a request, in the order in which they were sent. */
export interface RequestsPart {
  caption: Message;
  /** The time axis of all charts. */
  span_ns: [number, number];
  /** The first sequence that answered it. */
  trace: number[];
  sent_ns: number[];
  ttft_ns: Values;
  ttft_due_ns: Values;
  /** To the end of the stream. */
  answer_ns: Values;
  tokens: Values;
  label: (string | null)[];
  fault: (string | null)[];
  /** How long it took until its fault. */
  fault_ns: Values;
  /** How it ended: an index of `ends`. */
  end: number[];
  ends: Message[];
  figures: Figure[];
  /** What changed over time beside them, that of the tape itself first. */
  courses: { name: string | Message; caption: Message; at_ns: number[]; values: Values }[];
  left_out: Message | null;
}

export interface Provenance {
  groups: { title: Message; rows: { name: string; value: string }[] }[];
  notes: Message[];
  /** How to run it again. */
  again: string | null;
}

/** Of the steps of a run; what their columns hold already is not said again. */
export interface TimePart {
  caption: Message;
  /** Whose time is drawn: the column `step_ns`, or `device_ns`. */
  clock: "host" | "device";
  clock_note: Message;
  /** The vertical scale that shows all of it. */
  scale: "linear" | "log";
  law: Maybe<LawCurve>;
  floor: Maybe<Floor>;
  /** Steps that took much longer than expected, the longest excess first; `late_caption` counts all. */
  late: { step: number; ns: number; times: number; cause: "warm-up" | "gc" | "switches" | null; why: Message }[];
  late_caption: Message;
  prefill: { caption: Message; figures: Figure[]; n: number } | null;
  percentiles: Figure[];
  split: { caption: Message; rows: { name: Message; ns: number; share: number; text: string }[] } | null;
}
/** A curve that is known at the steps `knots`, and straight between them. */
export interface LawCurve {
  sentence: Message;
  form: string;
  /** Nanoseconds for each `per`. */
  coefficients: { name: Message; per: Message; value: number; low: number; high: number; share: number }[];
  check: Message | null;
  /** What `low` and `high` hold. */
  band: Message;
  knots: number[];
  ns: Values;
  low: Values;
  high: Values;
  /** The steps of `ratio`, measured over law; a number is the first of consecutive ones. */
  index: number | number[];
  ratio: Values;
  ratio_caption: Message;
}
export interface Floor {
  name: string;
  badge: Figure["badge"];
  knots: number[];
  ns: Values;
  note: Message;
}
/** Of the generated tokens; entropy, surprise, rank and tokens left stand in their columns. */
export interface DistributionPart {
  caption: Message;
  mean_entropy: number | null;
  mean_surprise: number | null;
  rank_caption: Message;
  /** Shares of the probability by rank, which add up to 1 at each token. */
  mass: Maybe<{ caption: Message; k: number; bands: { label: Message; values: Values }[] }>;
  rules: { caption: Message; removed: Values } | null;
}
/** A matrix row by row: row r has `counts[r]` entries, ascending by column, whose values are `values / per`. */
export interface SparseRows {
  counts: number[];
  /** Column of each entry; null where every row has the columns 0, 1, 2, ... */
  columns: number[] | null;
  values: Values;
  per: number;
}

/** Whether the replay, from which something was found, computed what the tape says; `passed` is null where it was not compared. */
export interface Checked {
  text: Message;
  passed: boolean | null;
}

export interface RelevancePart {
  /** At least one, as the tape has them. */
  explanations: Explained[];
}
/** What targets rest on, by one method. */
export interface Explained {
  number: number | null;
  /** Tells it from others: method, what is explained, of how many. */
  title: Message;
  caption: Message;
  method: string;
  kind: "logit" | "foil" | "logprob";
  unit: Unit;
  /** Places that are explained, ascending; with `together` they share the one row that there is. */
  targets: number[];
  together: boolean;
  /** How the token that each target is held against is drawn; null where there is none. */
  foils: string[] | null;
  /** Sources, as places: half-open, ascending. */
  starts: number[];
  stops: number[];
  /** A row for each target, a column for each source. */
  rows: SparseRows;
  /** Of each row: the largest relevance by absolute value, what is explained, and what the tokens add up to (100 %). */
  limits: number[];
  values: number[];
  wholes: Values | null;
  /** What else adds up to the value: an entry a row. */
  ledger: { name: Message; values: number[] }[];
  /** What part of the relevance is here, where not all of it is. */
  kept: Message | null;
  check: Checked;
  cost: Message;
  /** What the method asks, and what it cannot prove. */
  note: Message;
}
/** Weights of the sources kept; `kept` is the weight of each row's sources together, in the unit of `values`. */
export interface Weights extends SparseRows {
  kept: Values;
}
export interface AttentionPart {
  caption: Message;
  /** What is not here of the weights. */
  kept: Message[];
  check: Checked;
  /** Heads of each layer; 0 for one without attention. */
  n_heads: number[];
  /** Means of single heads over all rows: a row for each layer, a column for each head. */
  figures: { name: Message; unit: Unit; values: Values[]; low: number; high: number }[];
  /** Place that each row predicts. Its sources are the places before. */
  rows: number[];
  overall: Weights;
  /** Means over the heads of a layer; null without attention. */
  layers: (Weights | null)[];
  /** Rows of single heads, by layer and head; empty where none were kept. */
  head_rows: number[];
  heads: Weights[][];
}
/** A matrix: a row for each layer, ascending, a column for each place. Its colours go from `low` to `high`, or from -high to high. */
export interface LayerMap {
  key: string;
  unit: Unit;
  difference: 0 | 1;
  log: 0 | 1;
  power: number;
  low: number;
  high: number;
  values: Values[];
}
export interface LayerMaps {
  caption: Message;
  notes: Message[];
  check: Checked;
  places: number[];
  /** Number of the first row: 0 is what the first layer reads, the entry. */
  first: number;
  maps: LayerMap[];
}
/** What each layer would have said: its best token (a place among `names`) with its probability. */
export interface LensMaps extends LayerMaps {
  names: string[];
  best: Values[];
  best_share: Values[];
  /** The layer from which on the token that stands there is first. */
  chosen_from: Values;
}
/** What each layer added: its strongest head with its share; `rest` is what norm and head add. */
export interface DirectMaps extends LayerMaps {
  what: Message;
  head: Values[];
  head_value: Values[];
  value: Values;
  entry: Values;
  rest: Values;
}
export interface LayersPart {
  lens: Maybe<LensMaps>;
  attention: Maybe<LayerMaps>;
  direct: Maybe<DirectMaps>;
}
export interface CostPart {
  caption: Message;
  clock: "host" | "device" | null;
  figures: Figure[];
  /** Operations a byte that are worth showing. */
  span: [number, number];
  /** Of the machine that the tape was made on. `line` is x, y of three points. */
  roofs: Maybe<{ name: Message; badge: Figure["badge"]; note: Message; one_row: 0 | 1; line: number[] }[]>;
  runs: CostRun[];
  left_out: Message | null;
  memory: { caption: Message; runs: MemoryRun[] };
  accelerators: Maybe<Accelerators>;
}
/** Marks of one run: each is a step, or stands for `n` decode steps from `step` on. */
export interface CostRun {
  run: number;
  step: number[];
  n: number[];
  decode: (0 | 1)[];
  context: Values;
  batch: number[];
  ns: number[];
  /** Operations a byte. */
  intensity: number[];
  flops_per_s: number[];
  bytes_per_s: number[];
  /** Operations a second that the machine allows there, and how near it came; null where its peaks are not known. */
  reach: Values;
  share: Values;
}
/** Bytes after the steps that were read. */
export interface MemoryRun {
  run: number;
  step: number[];
  context: Values;
  batch: number[];
  cache: Values;
  modelled: Values;
  rss: Values;
  device: Values;
}
/** What one request would take on each machine of the catalogue, at least: a column a figure. */
export interface Accelerators {
  asked: Message;
  context: number;
  batch: number;
  new_tokens: number;
  peak_bytes: number;
  name: string[];
  source: string[];
  dtype: (string | null)[];
  memory_bytes: Values;
  fits: Values;
  largest_batch: Values;
  largest_context: Values;
  prefill_ns: Values;
  prefill_bound: (string | null)[];
  decode_ns: Values;
  decode_bound: (string | null)[];
  tokens_per_s: Values;
  request_ns: Values;
  roof: (number[] | null)[];
}
export interface ComparePart {
  caption: Message;
  /** Why the two may not be compared; then there are sides and differences alone. */
  refused: Missing | null;
  verdict: {
    word: "SLOWER" | "FASTER" | "SAME" | "UNCLEAR";
    name: Message;
    sentence: Message;
    reason: Message | null;
    threshold: number;
    confidence: number;
    change: number | null;
    low: number | null;
    high: number | null;
    n: number;
    interleaved: 0 | 1;
  } | null;
  caveat: Message | null;
  /** A, B. */
  sides: { name: string | null; model: string | null; state: TapePart["state"]; n_runs: number; n_traces: number; n_tokens: number }[];
  /** `because` is null for what is refused, "asked" for the question, else what it follows from. */
  differences: { name: string; kind: "setting" | "option" | "prompt"; a: string | null; b: string | null; because: string | null }[];
  notes: Message[];
  aligned: Aligned[];
  more: Message | null;
  series: { at: "context" | "step"; caption: Message; batches: { batch: number; x: number[]; a_ns: number[]; b_ns: number[]; ratio: number[] }[] } | null;
  ratios: { label: Message; inner: 0 | 1; a_ns: number; b_ns: number; ratio: number; low: number | null; high: number | null; n_a: number; n_b: number }[];
  laws: Maybe<CoefficientPair[]>;
}
/** One sequence of A beside one of B. */
export interface Aligned {
  a: number;
  b: number;
  n_alike: number;
  by: "ids" | "bytes" | null;
  outcome: Message;
  deviation: Message | null;
  /** Five numbers each: tokens of A from, to, of B from, to (half-open); 0 the same one by one, 1 the same cut otherwise, 2 others. */
  stretches: number[];
  sides: { prompt: string; text: string[]; open: (0 | 1)[]; special: (0 | 1)[]; share: Values; gap_ns: Values }[];
  parting: {
    /** Of the token in each, and its position; null where that one had ended. */
    index: number[];
    position: Values;
    name: string[];
    /** What A and what B gave to each. */
    share: Values[];
    said: Values;
    /** What one that was not kept has at most. */
    below: Values;
  } | null;
}
/** `[value, low, high]` in nanoseconds for each `per`. */
export interface CoefficientPair {
  kind: "decode" | "prefill";
  term: Message;
  meaning: Message;
  per: Message;
  a: number[] | null;
  b: number[] | null;
  difference: number[] | null;
  apart: boolean | null;
}
export interface LawPart {
  caption: Message;
  confidence: number;
  machine: string | null;
  subjects: { name: string; columns: LawColumn[] }[];
  missing: Message[];
}
/** The law of one kind of step. */
export interface LawColumn {
  kind: "decode" | "prefill";
  title: Message;
  /** Terms, whose sum it is. */
  form: Message[];
  also: Message[][];
  clock: "host" | "device";
  n_cells: number;
  n_points: number;
  measured: number[];
  batch: number[];
  /** Ends of the axes of time and of ratio: what was left out may lie beyond. */
  ends: [number, number];
  ratio_ends: [number, number];
  contexts: number[];
  lines: { batch: number; ns: number[]; low: number[]; high: number[]; roof: number[] | null }[];
  cells: { batch: number[]; context: number[]; ns: number[] };
  /** `cause` is 0 for what was fitted, else why not: 1 warm-up, 2 collection, 3 context switches. */
  points: { n: number; context: number[]; batch: number[]; ns: number[]; ratio: number[]; cause: number[] };
  coefficients: { term: Message; per: Message; meaning: Message; value: number; low: number; high: number; share: number; text: string[] }[];
  check: { median_error: number; p90_error: number; coverage: number; n: number } | null;
  sentences: Message[];
}
