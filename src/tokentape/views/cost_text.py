"""What a prediction says, as text: what is counted, what fits, what the machine would need at least."""

from __future__ import annotations

from collections.abc import Sequence

from tokentape.study.cost.figure import Figure
from tokentape.study.cost.prediction import Prediction
from tokentape.views.screen import Screen, columns
from tokentape.views.units import ABSENT, bytes_text, duration, rate

__all__ = ["by_machine", "by_value", "prediction_text"]

_NAME = 18


def prediction_text(found: Prediction, screen: Screen) -> str:
    """One prediction: the model, its memory, its work, its times, and what was assumed."""
    parts = [_model(found), _memory(found), _work(found)]
    if found.figures["prefill_ns"].value is not None or found.hardware is not None:
        parts.append(_times(found))
    lines: list[str] = []
    for title, rows in parts:
        lines += [*([""] if lines else []), screen.paint(title, "bold")]
        lines += [f"  {name:<{_NAME}}{text}" for name, text in rows if text]
    if found.notes:
        lines += ["", screen.paint("assumed", "bold"), *(f"  {note}" for note in found.notes)]
    return "\n".join(screen.safe(line) for line in lines)


def _model(found: Prediction) -> tuple[str, list[tuple[str, str]]]:
    f = found.figures
    n, active = f["parameters"].value, f["active_parameters"].value
    text = f"{_count(n)} ({n:,})"
    if active != n:
        text += f", {_count(active)} take part in a token"
    shape = ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in found.sizes.items())
    return found.model_type, [("parameters", text), ("blocks", found.blocks), ("sizes", shape), ("dtype", found.dtype)]


def _memory(found: Prediction) -> tuple[str, list[tuple[str, str]]]:
    f, n = found.figures, found.tensor_parallel
    weights = size(f["weight_bytes"])
    if n > 1:
        weights += f" in all, {size(f['device_weight_bytes'])} on each of {n} devices"
    per_token = size(f["kv_bytes_per_token"]) + " a token" if f["kv_bytes_per_token"].value else ""
    state = size(f["state_bytes"]) + " a sequence" if f["state_bytes"].value else ""
    cache = f"{size(f['cache_bytes'])} ({', '.join(filter(None, (per_token, state)))})"
    rows = [
        ("weights", weights),
        ("cache", cache + (" in all" if n > 1 else "")),
        ("peak", f"{size(f['peak_bytes'])}{' a device' if n > 1 else ''}: {f['peak_bytes'].why.partition(';')[0]}"),
    ]
    if found.hardware is not None:
        rows += _fits(found)
    return f"memory, {request_text(found)}", rows


def _fits(found: Prediction) -> list[tuple[str, str]]:
    f = found.figures
    if f["fits"].value is None:
        return [("fits", f"{ABSENT}: {f['fits'].why}")]
    verdict = "yes" if f["fits"].value else "NO"
    largest_batch, largest_context = f["largest_batch"], f["largest_context"]
    return [
        ("fits", f"{verdict}, into {size(f['memory_bytes'])} of {_machine(found)}"),
        ("largest batch", _most(largest_batch)),
        ("largest context", _most(largest_context)),
    ]


def _most(figure: Figure) -> str:
    if figure.value is None:
        return f"{ABSENT}: {figure.why}"
    return (
        f"{figure.value:,} {figure.unit} {figure.why}"
        if figure.value
        else f"none: one of its {figure.unit} is too much"
    )


def _work(found: Prediction) -> tuple[str, list[tuple[str, str]]]:
    f = found.figures
    rows = [
        ("prefill", f"{number(f['prefill_flops'].value, 'FLOP')}, {size(f['prefill_bytes'])} moved"),
        ("a decode step", f"{number(f['decode_flops'].value, 'FLOP')}, {size(f['decode_bytes'])} moved"),
    ]
    if found.new_tokens > 1:
        rows.append(("whole request", number(f["request_flops"].value, "FLOP")))
    if "reduce_bytes" in f:
        rows.append(("all-reduce", f"{size(f['reduce_bytes'])} sent by each device in a step"))
    return "compute", rows


def _times(found: Prediction) -> tuple[str, list[tuple[str, str]]]:
    f = found.figures
    law = f["prefill_ns"].low is not None
    title = "time, by a law" if law else f"time on {_machine(found)}, at least"
    told = f["tokens_per_s"]
    speed = rate(told.value)
    each = (
        ""
        if found.batch == 1
        else f", {rate(told.value / found.batch, '').strip()} for each of {found.batch} sequences"
    )
    if law:
        speed += f" ({rate(told.low, '').strip()} to {rate(told.high, '').strip()})"
    energy = f["energy_j"]
    rows = [
        ("prefill (TTFT)", _time(f, "prefill")),
        ("a decode step", _time(f, "decode")),
        ("speed", f"{'' if law else 'at most '}{speed}{each}"),
    ]
    if found.new_tokens > 1:
        rows.append(("whole request", _interval(f["request_ns"])))
    power = f"{number(energy.value, 'J')}: {energy.why}" if energy.value is not None else f"{ABSENT}: {energy.why}"
    return title, [*rows, ("energy", power)]


def _time(figures: object, phase: str) -> str:
    assert isinstance(figures, dict)
    text, bound = _interval(figures[f"{phase}_ns"]), figures.get(f"{phase}_bound")
    return text if bound is None else f"{text}, bound by {bound.value}"


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return duration(figure.value)
    return f"{duration(figure.value)} ({duration(figure.low)} to {duration(figure.high)})"


def _machine(found: Prediction) -> str:
    if found.hardware is None:
        return ABSENT
    name = found.hardware.name
    many = f"{found.tensor_parallel} x {name}" if found.tensor_parallel > 1 else name
    return f"{many} (measured {found.hardware.measured})" if found.hardware.measured else many


def request_text(found: Prediction) -> str:
    """``1,024 tokens of prompt, 4 sequences, 16 new tokens``."""
    parts = [f"{found.context:,} tokens of prompt"]
    parts += [f"{found.batch:,} sequences"] if found.batch > 1 else []
    parts += [f"{found.new_tokens:,} new tokens"] if found.new_tokens > 1 else []
    return ", ".join(parts)


def by_machine(found: Sequence[Prediction], screen: Screen) -> str:
    """The same request on several machines, one a line."""
    rows = [[p.hardware.name if p.hardware else ABSENT, *_cells(p)] for p in found]
    header = ["machine", "peak memory", "fits", "largest batch", "prefill", "decode step", "tokens/s"]
    title = screen.paint("at least, on some machines (--on NAME for one)", "bold")
    return "\n".join([title, *columns(screen, header, rows, "<>>>>>>")])


def by_value(found: Sequence[tuple[int, Prediction]], name: str, screen: Screen) -> str:
    """How cost grows with one size, one value a line."""
    header = [
        name.replace("_", " "),
        "parameters",
        "weights",
        "cache",
        "peak memory",
        "fits",
        "prefill FLOP",
        "decode FLOP",
    ]
    timed = found[0][1].figures["decode_ns"].value is not None
    header += ["prefill", "decode step", "tokens/s"] if timed else []
    rows = []
    for value, p in found:
        f = p.figures
        row = [
            f"{value:,}",
            number(f["parameters"].value),
            size(f["weight_bytes"]),
            size(f["cache_bytes"]),
            *_cells(p)[:2],
        ]
        row += [number(f["prefill_flops"].value), number(f["decode_flops"].value)]
        rows.append(row + (_cells(p)[3:] if timed else []))
    if all(row[5] == ABSENT for row in rows):
        header.pop(5)
        for row in rows:
            row.pop(5)
    return "\n".join(columns(screen, header, rows, ">" * len(header)))


def _cells(p: Prediction) -> list[str]:
    f = p.figures
    fits = f["fits"].value if "fits" in f else None
    most = f["largest_batch"].value if "largest_batch" in f else None
    return [
        size(f["peak_bytes"]),
        ABSENT if fits is None else "yes" if fits else "no",
        ABSENT if most is None else f"{most:,}",
        duration(f["prefill_ns"].value),
        duration(f["decode_ns"].value),
        rate(f["tokens_per_s"].value, "").strip(),
    ]


def size(figure: Figure) -> str:
    """Bytes in binary units."""
    return bytes_text(None if figure.value is None else round(figure.value))


def _count(parameters: int) -> str:
    """Parameters as models are named by them: ``8.03 B``."""
    for scale, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if parameters >= scale * 0.9995:
            return f"{_digits(parameters / scale)} {suffix}"
    return f"{parameters:,}"


def number(value: float, unit: str = "") -> str:
    """Three significant digits with K, M, G, T or P before the unit."""
    for scale, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale * 0.9995:
            return f"{_digits(value / scale)} {prefix}{unit}"
    return f"{_digits(value)} {unit}" if unit else _digits(value)


def _digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
