"""What a prediction says, as text: what is counted, what fits, what the machine would need at least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokentape.study.cost.figure import Figure
from tokentape.study.cost.prediction import Prediction
from tokentape.views.screen import Screen, columns, pad
from tokentape.views.units import ABSENT, bytes_text, duration, rate
from tokentape.words.catalogue import Lang, phrase
from tokentape.words.retold import retold

__all__ = ["by_machine", "by_value", "number", "prediction_text", "request_text"]

_NAME = 18

Rows = list[tuple[str, str]]
"""Names of labels with what stands behind them."""


def prediction_text(found: Prediction, screen: Screen) -> str:
    """One prediction: the model, its memory, its work, its times, and what was assumed."""
    parts = [_model(found, screen), _memory(found, screen), _work(found, screen)]
    if found.figures["prefill_ns"].value is not None or found.hardware is not None:
        parts.append(_times(found, screen))
    lines: list[str] = []
    for title, rows in parts:
        lines += [*([""] if lines else []), screen.paint(title, "bold")]
        lines += [f"  {pad(screen.say(f'cost.{name}'), _NAME)}{text}" for name, text in rows if text]
    if found.notes:
        lines += ["", screen.paint(screen.say("cost.assumed"), "bold")]
        lines += [f"  {retold(note, screen.lang, 'cost.note')}" for note in found.notes]
    return "\n".join(screen.safe(line) for line in lines)


def _model(found: Prediction, screen: Screen) -> tuple[str, Rows]:
    f = found.figures
    n, active = f["parameters"].value, f["active_parameters"].value
    text = screen.say("cost.made_of", all=_count(n), parts=f"{n:,}")
    if active != n:
        text = screen.say("cost.active", all=text, active=_count(active))
    shape = screen.say("cost.list").join(f"{_size_name(name, screen)} {value:,}" for name, value in found.sizes.items())
    blocks = " + ".join(retold(kind, screen.lang, "cost.block") for kind in found.blocks.split(" + "))
    dtype = retold(found.dtype, screen.lang, "cost.values")
    return found.model_type, [("parameters", text), ("blocks", blocks), ("sizes", shape), ("dtype", dtype)]


def _size_name(name: str, screen: Screen) -> str:
    return retold(name.replace("_", " "), screen.lang, "cost.size")


def _memory(found: Prediction, screen: Screen) -> tuple[str, Rows]:
    f, n = found.figures, found.tensor_parallel
    weights = size(f["weight_bytes"])
    if n > 1:
        weights = screen.say("cost.weights_on", all=weights, device=size(f["device_weight_bytes"]), n=str(n))
    kinds = {"a_token": f["kv_bytes_per_token"], "a_sequence": f["state_bytes"]}
    parts = [screen.say(f"cost.{name}", size=size(figure)) for name, figure in kinds.items() if figure.value]
    cache = screen.say(
        "cost.made_of_in_all" if n > 1 else "cost.made_of",
        all=size(f["cache_bytes"]),
        parts=screen.say("cost.list").join(parts),
    )
    why = retold(f["peak_bytes"].why.partition(";")[0], screen.lang, "cost.why")
    peak = screen.say("cost.peak_device" if n > 1 else "cost.peak_of", size=size(f["peak_bytes"]), why=why)
    rows = [("weights", weights), ("cache", cache), ("peak", peak)]
    if found.hardware is not None:
        rows += _fits(found, screen)
    return screen.say("cost.memory_of", request=request_text(found, screen.lang)), rows


def _fits(found: Prediction, screen: Screen) -> Rows:
    f = found.figures
    if f["fits"].value is None:
        return [("fits", _absent(f["fits"], screen))]
    key = "cost.fits_yes" if f["fits"].value else "cost.fits_no"
    return [
        ("fits", screen.say(key, room=size(f["memory_bytes"]), machine=_machine(found, screen))),
        ("largest_batch", _most(f["largest_batch"], screen)),
        ("largest_context", _most(f["largest_context"], screen)),
    ]


def _absent(figure: Figure, screen: Screen) -> str:
    return screen.say("cost.absent", why=retold(figure.why, screen.lang, "cost.why"))


def _most(figure: Figure, screen: Screen) -> str:
    if figure.value is None:
        return _absent(figure, screen)
    if not figure.value:
        return screen.say(f"cost.none_{figure.unit}")
    return retold(f"{figure.value:,} {figure.unit} {figure.why}", screen.lang, "cost.most")


def _work(found: Prediction, screen: Screen) -> tuple[str, Rows]:
    f = found.figures

    def moved(phase: str) -> str:
        flops = number(f[f"{phase}_flops"].value, "FLOP")
        return screen.say("cost.moved", flops=flops, bytes=size(f[f"{phase}_bytes"]))

    rows = [("prefill", moved("prefill")), ("a_step", moved("decode"))]
    if found.new_tokens > 1:
        rows.append(("request", number(f["request_flops"].value, "FLOP")))
    if "reduce_bytes" in f:
        rows.append(("reduce", screen.say("cost.sent", bytes=size(f["reduce_bytes"]))))
    return screen.say("cost.compute"), rows


def _times(found: Prediction, screen: Screen) -> tuple[str, Rows]:
    f = found.figures
    law = f["prefill_ns"].low is not None
    title = screen.say("cost.time_law") if law else screen.say("cost.time_on", machine=_machine(found, screen))
    told = f["tokens_per_s"]
    speed = rate(told.value)
    if law:
        ends = {"low": rate(told.low, "").strip(), "high": rate(told.high, "").strip()}
        speed = screen.say("cost.between", value=speed, **ends)
    if found.batch != 1:
        one = rate(told.value / found.batch, "").strip()
        speed = screen.say("cost.each", all=speed, one=one, n=str(found.batch))
    if not law:
        speed = screen.say("cost.at_most", speed=speed)
    rows = [("ttft", _time(f, "prefill", screen)), ("a_step", _time(f, "decode", screen)), ("speed", speed)]
    if found.new_tokens > 1:
        rows.append(("request", _interval(f["request_ns"], screen)))
    return title, [*rows, ("energy", _energy(f["energy_j"], screen))]


def _energy(figure: Figure, screen: Screen) -> str:
    if figure.value is None:
        return _absent(figure, screen)
    why = retold(figure.why, screen.lang, "cost.why")
    return screen.say("cost.power", energy=number(figure.value, "J"), why=why)


def _time(figures: Mapping[str, Figure], phase: str, screen: Screen) -> str:
    text, bound = _interval(figures[f"{phase}_ns"], screen), figures.get(f"{phase}_bound")
    if bound is None:
        return text
    return screen.say("cost.bound_by", time=text, what=screen.say(f"cost.bound.{bound.value}"))


def _interval(figure: Figure, screen: Screen) -> str:
    if figure.low is None or figure.high is None:
        return duration(figure.value)
    ends = {"low": duration(figure.low), "high": duration(figure.high)}
    return screen.say("cost.between", value=duration(figure.value), **ends)


def _machine(found: Prediction, screen: Screen) -> str:
    if found.hardware is None:
        return ABSENT
    name = found.hardware.name
    many = f"{found.tensor_parallel} x {name}" if found.tensor_parallel > 1 else name
    when = found.hardware.measured
    return screen.say("cost.measured", machine=many, when=when) if when else many


def request_text(found: Prediction, lang: Lang = "en") -> str:
    """``1,024 tokens of prompt, 4 sequences, 16 new tokens``."""
    parts = [phrase("cost.prompt", lang, n=found.context)]
    parts += [phrase("cost.sequences", lang, n=found.batch)] if found.batch > 1 else []
    parts += [phrase("cost.new", lang, n=found.new_tokens)] if found.new_tokens > 1 else []
    return phrase("cost.list", lang).join(parts)


def by_machine(found: Sequence[Prediction], screen: Screen) -> str:
    """The same request on several machines, one a line."""
    rows = [[p.hardware.name if p.hardware else ABSENT, *_cells(p, screen)] for p in found]
    names = ("machine", "peak_memory", "fits", "largest_batch", "prefill", "decode_step", "speed_column")
    title = screen.paint(screen.say("cost.machines"), "bold")
    lines = [title, *columns(screen, [screen.say(f"cost.{name}") for name in names], rows, "<>>>>>>")]
    return "\n".join(screen.safe(line) for line in lines)


def by_value(found: Sequence[tuple[int, Prediction]], name: str, screen: Screen) -> str:
    """How cost grows with one size, one value a line."""
    names = ["parameters", "weights", "cache", "peak_memory", "fits", "prefill_flops", "decode_flops"]
    timed = found[0][1].figures["decode_ns"].value is not None
    names += ["prefill", "decode_step", "speed_column"] if timed else []
    header = [_size_name(name, screen), *(screen.say(f"cost.{one}") for one in names)]
    rows = []
    for value, p in found:
        f = p.figures
        row = [
            f"{value:,}",
            number(f["parameters"].value),
            size(f["weight_bytes"]),
            size(f["cache_bytes"]),
            *_cells(p, screen)[:2],
        ]
        row += [number(f["prefill_flops"].value), number(f["decode_flops"].value)]
        rows.append(row + (_cells(p, screen)[3:] if timed else []))
    if all(row[5] == ABSENT for row in rows):
        header.pop(5)
        for row in rows:
            row.pop(5)
    return "\n".join(screen.safe(line) for line in columns(screen, header, rows, ">" * len(header)))


def _cells(p: Prediction, screen: Screen) -> list[str]:
    f = p.figures
    fits = f["fits"].value if "fits" in f else None
    most = f["largest_batch"].value if "largest_batch" in f else None
    return [
        size(f["peak_bytes"]),
        ABSENT if fits is None else screen.say("cost.yes" if fits else "cost.no"),
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
