"""Plots: what is in them against the numbers that they are made of, and the files that they become."""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokentape.views.law_shape as law_shape
import tokentape.views.plots_cost as plots_cost
import tokentape.views.plots_growth as plots_growth
import tokentape.views.plots_law as plots_law
from tokentape.errors import MissingExtra, StudyError, UsageError
from tokentape.study.cost.counting import workload
from tokentape.study.cost.hardware import Hardware
from tokentape.study.cost.prediction import predict
from tokentape.study.cost.roofline import roof
from tokentape.study.law.gathering import Subject
from tokentape.study.law.laws import Law, fit_points
from tokentape.study.law.points import Point
from tokentape.views.plots import check_plot, tick_text, ticks

MS = 1e6
CONTEXTS, BATCHES = (64, 128, 256, 512, 1024), (1, 2, 4)
LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "torch_dtype": "bfloat16",
    "max_position_embeddings": 8192,
}  # fmt: skip
MACHINE = Hardware("paper", {"bfloat16": 100.0}, 24.0, 1000.0, None, None, "a test")


def decode_ns(context: float, batch: float) -> float:
    return 40e6 + 1e6 * batch + 400.0 * batch * context


def prefill_ns(context: float, batch: float) -> float:
    return 50e6 + 2e5 * batch * context


def points(noise: float = 0.01, contexts: Any = CONTEXTS, batches: Any = BATCHES) -> list[Point]:
    random = np.random.default_rng(0)
    kinds = (("decode", decode_ns), ("prefill", prefill_ns))
    found = [
        Point(kind, c, b, ns(c, b) * float(np.exp(noise * random.standard_normal())))
        for kind, ns in kinds
        for c in contexts
        for b in batches
        for _ in range(2)
    ]
    late = [Point("decode", 128, 1, 3 * decode_ns(128, 1), cause="gc")] * 3
    late += [Point("decode", 64, 2, 400 * decode_ns(64, 2), cause="warm-up")]
    return found + late


def named(law: Law, name: str, **facts: Any) -> Law:
    return replace(law, subjects=(replace(law.subjects[0], name=name, facts=facts),))


@pytest.fixture(scope="module")
def law() -> Law:
    return fit_points(points(), (Subject("a model", "f", {"config": LLAMA, "dtype": "bfloat16"}),))


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``figure(plot_law, law)``: what would have been saved, laid out."""
    caught: list[Any] = []
    for module in (plots_law, plots_cost, plots_growth):
        monkeypatch.setattr(module, "save", lambda made, path, title: (made.canvas.draw(), caught.append(made)))

    def draw(plot: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        plot(*arguments, "x.png", **options)
        return caught[-1]

    return draw


def texts(figure: Any) -> str:
    """Every text of a figure, lines joined."""
    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text)).replace("\n", " ")


def overlapping(figure: Any) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other, and those that are cut by the edge of the picture."""
    seen = []
    for text in figure.findobj(matplotlib.text.Text):
        if text.get_visible() and text.get_text().strip() and text.get_rotation() in (0, 90):
            box = text.get_window_extent()
            # ticks beyond the limits of their axis are not drawn, and have no place
            inside = (
                figure.bbox.x0 <= box.x0
                and box.x1 <= figure.bbox.x1
                and figure.bbox.y0 <= box.y0
                and box.y1 <= figure.bbox.y1
            )
            seen.append((text.get_text(), box.shrunk(0.98, 0.8), inside))
    cut = [(text, "the edge") for text, _, inside in seen if not inside]
    return cut + [(a[0], b[0]) for a, b in itertools.combinations(seen, 2) if a[1].overlaps(b[1])]


# the law


def test_its_lines_are_what_the_law_predicts(law: Law, figure: Callable[..., Any]) -> None:
    drawn = figure(plots_law.plot_law, law, confidence=0.8)
    for axes, kind in zip(drawn.findobj(matplotlib.axes.Axes)[:2], ("decode", "prefill"), strict=True):
        size = {"ms": 1e6, "s": 1e9}[axes.get_ylabel().split("(")[1].rstrip(")")]
        dashed = [one for one in axes.lines if len(one.get_xdata()) == 96]
        assert len(dashed) == len(BATCHES)
        for batch, one, band in zip(BATCHES, dashed, axes.collections, strict=False):
            for i in (0, 30, 95):
                asked = law.predict(context=one.get_xdata()[i], batch=batch, kind=kind, confidence=0.8)
                assert one.get_ydata()[i] * size == pytest.approx(asked.ns, rel=1e-6)
                ends = sorted(y for x, y in band.get_paths()[0].vertices if x == pytest.approx(one.get_xdata()[i]))
                assert (ends[0] * size, ends[-1] * size) == pytest.approx((asked.low_ns, asked.high_ns), rel=1e-6)


def test_every_measurement_is_there_and_what_was_left_out_is_hollow(law: Law, figure: Callable[..., Any]) -> None:
    drawn = figure(plots_law.plot_law, law)
    above, _, below, _ = drawn.findobj(matplotlib.axes.Axes)
    for axes in (above, below):
        dots = [one for one in axes.lines if one.get_marker() == "."]
        assert sum(len(one.get_xdata()) for one in dots) == len(CONTEXTS) * len(BATCHES) * 2
        hollow = {one.get_marker(): one for one in axes.lines if one.get_markerfacecolor() == "none"}
        assert {mark: len(one.get_xdata()) for mark, one in hollow.items()} == {"D": 3, "o": 1}, "gc, warm-up"
        low, high = axes.get_ylim()
        assert all(low < y < high for one in hollow.values() for y in one.get_ydata()), (
            "what lies beyond stands at the edge"
        )
    assert "left out: gc" in texts(drawn) and "left out: warm-up" in texts(drawn) and "switches" not in texts(drawn)
    assert "4 beyond the edge" in texts(drawn), (
        "400 times and three times the law, where the others lie within some percent"
    )


def test_what_was_not_measured_is_shaded_and_dashed(law: Law, figure: Callable[..., Any]) -> None:
    axes = figure(plots_law.plot_law, law).findobj(matplotlib.axes.Axes)[0]
    shaded = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches)
    assert shaded == [pytest.approx((32, 64)), pytest.approx((1024, 2048))]
    assert axes.get_xlim() == pytest.approx((32, 2048))
    solid = [one for one in axes.lines if one.get_linewidth() == 1.8]
    assert {(round(min(one.get_xdata())), round(max(one.get_xdata()))) <= (65, 1024) for one in solid} == {True}
    assert "extrapolated" in texts(axes)


def test_a_batch_that_was_measured_at_one_context_is_dashed_elsewhere(figure: Callable[..., Any]) -> None:
    some = [point for point in points() if point.batch == 1 or point.context == 256]
    axes = figure(plots_law.plot_law, fit_points(some, (Subject("m", "f"),))).findobj(matplotlib.axes.Axes)[0]
    solid = [one for one in axes.lines if one.get_linewidth() == 1.8]
    assert [len(one.get_xdata()) > 10 for one in solid] == [True, False, False]


def test_the_roofline_is_that_of_the_work_and_lies_below(law: Law, figure: Callable[..., Any]) -> None:
    drawn = figure(plots_law.plot_law, law, hardware=MACHINE)
    axes = drawn.findobj(matplotlib.axes.Axes)[0]
    dotted = [one for one in axes.lines if one.get_linestyle() == ":"]
    assert len(dotted) == len(BATCHES)
    work = replace(workload(LLAMA, "bfloat16"), pairs="seen")
    for batch, one in zip(BATCHES, dotted, strict=True):
        x, y = one.get_xdata()[70], one.get_ydata()[70]
        assert y * MS == pytest.approx(roof(work.decode(x, batch), MACHINE, "bfloat16").ns)
    told = re.search(r"Decode settings took ([\d.]+) times", texts(drawn))
    ratios = [decode_ns(c, b) / roof(work.decode(c, b), MACHINE, "bfloat16").ns for c in CONTEXTS for b in BATCHES]
    assert told is not None and float(told[1]) == pytest.approx(min(ratios), rel=0.03)
    assert "roofline of paper" in texts(drawn)


def test_a_roofline_that_measurements_cross_is_not_of_this_machine(law: Law, figure: Callable[..., Any]) -> None:
    told = texts(figure(plots_law.plot_law, law, hardware=replace(MACHINE, bandwidth_gb_s=100.0)))
    assert "of the least time that paper allows: its peaks are others, or it was not measured there" in told


def test_a_roofline_far_below_is_told_instead(law: Law, figure: Callable[..., Any]) -> None:
    drawn = figure(plots_law.plot_law, law, hardware=replace(MACHINE, bandwidth_gb_s=1e6, tflops={"bfloat16": 1e6}))
    assert "allows, or more (off the plot)" in texts(drawn) and "roofline of" not in texts(drawn)
    assert not [one for axes in drawn.findobj(matplotlib.axes.Axes) for one in axes.lines if one.get_linestyle() == ":"]


def test_a_roofline_needs_the_configuration(law: Law, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no roofline can be drawn for a model"):
        plots_law.plot_law(named(law, "a model"), tmp_path / "a.png", hardware=MACHINE)


def test_its_caption_says_what_the_law_says(law: Law, figure: Callable[..., Any]) -> None:
    told = texts(figure(plots_law.plot_law, law))
    sentence = law.sentence()
    assert sentence is not None and sentence[1:] in told
    assert law.decode is not None and law.decode.check is not None
    assert f"median error was {law.decode.check.median_error:.1%}" in told
    assert "Left out of the fit: 1 measurement for warm-up, 3 measurements for gc." in told


def test_several_settings_stand_one_below_the_other(law: Law, figure: Callable[..., Any], tmp_path: Path) -> None:
    both = [named(law, "one"), named(law, "two")]
    assert len(figure(plots_law.plot_law, both).findobj(matplotlib.axes.Axes)) == 8
    one = figure(plots_law.plot_law, both, of="two")
    assert len(one.findobj(matplotlib.axes.Axes)) == 4 and "Latency of two" in texts(one)
    with pytest.raises(UsageError, match=r"no Setting 'three'[\s\S]*one, two"):
        plots_law.plot_law(both, tmp_path / "a.png", of="three")
    with pytest.raises(UsageError, match="50 Settings are too many for one picture"):
        plots_law.plot_law(both * 25, tmp_path / "a.png")


def test_a_law_of_several_models_is_drawn_for_each(figure: Callable[..., Any]) -> None:
    small = {**LLAMA, "num_hidden_layers": 8}
    works = [workload(config, "bfloat16") for config in (LLAMA, small)]
    subjects = tuple(Subject(f"llama {i}", str(i), {}, work, pooled=True) for i, work in enumerate(works))
    given = [
        Point(
            "decode",
            c,
            b,
            10e6 + works[i].decode(c, b).weight_bytes / 500 + works[i].decode(c, b).kv_bytes / 300,
            labels={"subject": i},
        )
        for i in range(2)
        for c in CONTEXTS
        for b in BATCHES
    ]
    law = fit_points(given, subjects)
    drawn = figure(plots_law.plot_law, law)
    for axes, name in zip(drawn.findobj(matplotlib.axes.Axes)[::2], ("llama 0", "llama 1"), strict=True):
        one = next(one for one in axes.lines if len(one.get_xdata()) == 96)
        asked = law.predict(context=one.get_xdata()[40], batch=1, of=name)
        assert one.get_ydata()[40] * MS == pytest.approx(asked.ns, rel=1e-6)


def test_many_batches_are_all_measured_and_some_have_lines(figure: Callable[..., Any]) -> None:
    some = [point for point in points(contexts=(64, 256, 1024), batches=range(1, 10)) if point.kind == "decode"]
    many = fit_points(some, (Subject("m", "f"),))
    axes = figure(plots_law.plot_law, many).findobj(matplotlib.axes.Axes)[0]
    assert len([one for one in axes.lines if len(one.get_xdata()) == 96]) == law_shape.MOST_LINES
    assert sum(len(one.get_xdata()) for one in axes.lines if one.get_marker() == ".") == 3 * 9 * 2


# what every picture keeps


@pytest.mark.slow
def test_no_label_covers_another_or_is_cut(law: Law, figure: Callable[..., Any]) -> None:
    varied = [(n, predict(LLAMA, context=n, hardware=MACHINE)) for n in (1024, 4096, 65536)]
    drawings = [
        figure(plots_law.plot_law, law, hardware=MACHINE),
        figure(plots_law.plot_law, [law, named(law, "long " * 40)]),
        figure(plots_law.plot_law, fit_points([p for p in points() if p.kind == "decode"], law.subjects)),
        figure(plots_cost.plot_cost, LLAMA, hardware=MACHINE, context=8192, batch=4),
        figure(plots_growth.plot_growth, varied, "context"),
    ]  # fmt: skip
    assert [overlapping(drawn) for drawn in drawings] == [[]] * len(drawings)


def test_the_same_plot_is_the_same_file(law: Law, tmp_path: Path) -> None:
    for kind in ("png", "svg"):
        first, second = (plots_law.plot_law(law, tmp_path / f"{i}.{kind}").read_bytes() for i in (1, 2))
        assert first == second
    root = ElementTree.fromstring(first)
    assert root.tag.endswith("svg") and b"dc:date" not in first and b"latency of a model" in first
    width = int.from_bytes((tmp_path / "1.png").read_bytes()[16:20], "big")
    assert width >= 1200


def test_nobodys_matplotlib_is_touched_or_heeded(law: Law, tmp_path: Path) -> None:
    plain = plots_law.plot_law(law, tmp_path / "a.png").read_bytes()
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        assert plots_law.plot_law(law, tmp_path / "b.png").read_bytes() == plain
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["$x^{$", "\x1b[31m\n/tmp/a", "模型 😀", r"a\b_{c}", "long " * 40])
def test_hostile_names_are_drawn_as_they_are(law: Law, tmp_path: Path, name: str) -> None:
    made = plots_law.plot_law(named(law, name), tmp_path / "a.svg").read_bytes()
    assert ElementTree.fromstring(made) is not None and b"\x1b" not in made


def test_pyplot_and_displays_are_left_alone(tmp_path: Path) -> None:
    program = (
        "import sys, tokentape.views.plots_law, tokentape.views.plots_cost\n"
        "assert 'matplotlib' not in sys.modules and 'scipy' not in sys.modules\n"
        f"tokentape.views.plots_cost.plot_cost({LLAMA!r}, sys.argv[1], hardware='l4', context=64)\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, tmp_path / "a.png"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("law.pdf", r"its suffix is '.pdf'; there are .png and .svg\nfix: --plot .*law.png"),
        ("law", r"it needs the suffix .png or .svg\nfix: --plot .*law.png"),
        ("x.tape", "no picture that can be drawn"),
        ("none/law.png", "there is no folder"),
        ("folder.png", "cannot be written"),
    ],
)
def test_what_cannot_become_a_picture(law: Law, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match=said):
        plots_law.plot_law(law, tmp_path / name)


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pip install 'tokentape\[plot\]'"):
        check_plot("law.png")


# costs


def test_the_surface_is_what_predict_says(figure: Callable[..., Any]) -> None:
    drawn = figure(plots_cost.plot_cost, LLAMA, hardware=MACHINE, context=1024, batch=2, layers=24)
    for axes, name in zip(drawn.axes, ("decode_ns", "prefill_ns"), strict=True):
        mesh = axes.collections[0]
        at, times = mesh.get_coordinates(), mesh.get_array().reshape(mesh.get_coordinates().shape[:2])
        for i, j in ((0, 0), (0, 36), (20, 10)):
            context, batch = at[i, j]
            if batch == round(batch):
                asked = predict(LLAMA, hardware=MACHINE, context=round(context), batch=round(batch), layers=24)
                assert times[i, j] == pytest.approx(asked[name], rel=0.02)
        (star,) = (one for one in axes.lines if one.get_marker() == "*")
        assert (star.get_xdata()[0], star.get_ydata()[0]) == (1024, 2)


def test_memory_ends_where_predict_says(figure: Callable[..., Any]) -> None:
    asked = predict(LLAMA, hardware=MACHINE, context=1024)
    drawn = figure(plots_cost.plot_cost, LLAMA, hardware=MACHINE, context=1024)
    hatched = next(one for one in drawn.axes[0].collections if any(getattr(one, "hatches", None) or []))
    (path,) = (path for path in hatched.get_paths() if len(path.vertices))
    assert path.contains_point((1024, asked["largest_batch"] * 1.03))
    assert not path.contains_point((1024, asked["largest_batch"] * 0.97))
    assert f"The 24 GB of paper hold {asked['largest_batch']:,} sequences" in texts(drawn)


def test_the_border_lies_where_the_bound_changes(figure: Callable[..., Any]) -> None:
    drawn = figure(plots_cost.plot_cost, LLAMA, hardware=MACHINE, context=32)
    border = drawn.axes[1].collections[-1]
    vertices = np.vstack([path.vertices for path in border.get_paths() if len(path.vertices)])
    context = float(np.max(vertices[:, 0]))  # where the batch is 1
    bounds = [predict(LLAMA, hardware=MACHINE, context=round(context * f))["prefill_bound"] for f in (0.9, 1.1)]
    assert bounds == ["bandwidth", "compute"]


def test_a_law_gives_the_times(figure: Callable[..., Any]) -> None:
    class Paper:
        def time_of(self, kind: str, workload: Any, context: float, batch: float) -> tuple[float, float, float]:
            ns = {"decode": 3e6, "prefill": 9e6}[kind] + getattr(workload, kind)(context, batch).flops / 1e6
            return ns, ns / 2, ns * 2

    drawn = figure(plots_cost.plot_cost, LLAMA, context=1024, law=Paper())
    times = drawn.axes[1].collections[0].get_array()
    assert float(times.min()) == pytest.approx(9e6 + workload(LLAMA).prefill(128, 1).flops / 1e6)
    assert "Times by a law" in texts(drawn) and "at least" not in texts(drawn) and "does not fit" not in texts(drawn)


def test_a_picture_of_costs_needs_a_machine(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a machine"):
        plots_cost.plot_cost(LLAMA, tmp_path / "a.png", context=1024)


def test_growth_is_drawn_against_what_varies(figure: Callable[..., Any]) -> None:
    found = [(n, predict(LLAMA, context=1024, layers=n)) for n in (8, 16, 32)]
    drawn = figure(plots_growth.plot_growth, found, "layers")
    memory, operations = drawn.axes
    assert list(memory.lines[0].get_xdata()) == [8, 16, 32]
    assert memory.lines[0].get_ydata()[1] == pytest.approx(found[1][1]["weight_bytes"] / 2**30)
    assert operations.lines[1].get_ydata()[2] == pytest.approx(found[2][1]["decode_flops"] / 1e9)
    ratio = found[2][1]["peak_bytes"] / found[0][1]["peak_bytes"]
    assert f"4 times the layers (8 to 32) cost {ratio:.3g} times the peak memory" in texts(drawn)


def test_growth_has_times_on_a_machine_and_two_values(figure: Callable[..., Any], tmp_path: Path) -> None:
    found = [(n, predict(LLAMA, context=n, hardware=MACHINE)) for n in (1000, 3000)]
    assert [axes.get_title(loc="left") for axes in figure(plots_growth.plot_growth, found, "context").axes][
        -1
    ] == "time (ms)"
    with pytest.raises(UsageError, match="one value makes no line"):
        plots_growth.plot_growth(found[:1], "context", tmp_path / "a.png")


# ticks


@given(st.floats(1e-3, 1e6), st.floats(1.001, 1e9), st.sampled_from([2, 10]), st.integers(5, 11))
def test_ticks_are_few_and_in_order_and_inside(low: float, factor: float, base: int, most: int) -> None:
    high = low * factor
    found = ticks(low, high, base, most)
    assert found == sorted(set(found)) and len(found) <= most
    assert all(low * (1 - 1e-9) <= value <= high * (1 + 1e-9) for value in found)
    if base == 10:
        assert len(found) >= 2
    else:
        assert all(math.log2(value) == round(math.log2(value)) for value in found)


@pytest.mark.parametrize(
    ("value", "text"), [(0.05, "0.05"), (1.5, "1.5"), (16, "16"), (1024, "1,024"), (131072, "131,072")]
)
def test_ticks_are_plain_numbers(value: float, text: str) -> None:
    assert tick_text(value) == text


@pytest.mark.slow
@pytest.mark.material
def test_other_peoples_measurements_can_be_drawn(material: Path, figure: Callable[..., Any]) -> None:
    from tokentape.study.law.laws import fit_table
    from tokentape.study.law.measurements import read_table

    laws = fit_table(read_table(material / "latency" / "splitwise_a100.csv"))
    drawn = figure(plots_law.plot_law, laws)
    assert len(drawn.findobj(matplotlib.axes.Axes)) == 4 * len(laws) and overlapping(drawn) == []
