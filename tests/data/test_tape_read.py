"""Readings in a finished tape: they come back to the bit, the wider replaces the narrower, and what is altered is found."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sqlite3
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tapes import (
    SEQUENCE,
    added,
    alter,
    explained,
    floats,
    killed_tape,
    lensed,
    looked,
    read_by,
    tops,
    write_run,
    write_tape,
)

from tokentape.data import Piece, Reading, ReplayCheck, Setting, TapeWriter, open_tape, verify
from tokentape.data.annex import add_explanations, add_readings
from tokentape.data.attention import AttentionSummary, TopSources
from tokentape.data.json_text import shortest
from tokentape.data.layers import DirectAttribution, Lens
from tokentape.data.reading import READ, covers
from tokentape.data.reading_rows import put_reading, read_reading
from tokentape.data.schema import READ_SINCE
from tokentape.errors import DamagedTape, UsageError

GOLDEN = Path(__file__).parent / "golden"


# there and back

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
single = st.floats(allow_nan=False, allow_infinity=False, width=32)
ids = st.integers(0, 2**50)
checks = st.one_of(
    st.none(),
    st.just(ReplayCheck(None, None, 0, 1e-4, False, "no log-probabilities")),
    st.builds(
        ReplayCheck, st.floats(0, 1e3), st.floats(0, 1e3), st.integers(1, 99), st.just(1e-4), st.booleans(), text
    ),
)
pieces = st.dictionaries(
    ids, st.tuples(st.one_of(st.none(), text), st.binary(max_size=5), st.booleans()), max_size=3
).map(lambda found: {i: Piece(i, *rest) for i, rest in found.items()})


@st.composite
def masked(draw, shape, dtype, elements):
    data = draw(arrays(dtype, shape, elements=elements))
    return np.ma.MaskedArray(data, draw(arrays(np.bool_, shape)))


@st.composite
def summaries(draw):
    n_heads = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=3).filter(any)))
    positions = sorted(draw(st.sets(st.integers(1, 20), min_size=1, max_size=4)))
    kept = sorted(draw(st.sets(st.sampled_from(positions))))
    lead, k = (len(n_heads), max(n_heads)), draw(st.integers(1, 3))

    def sources(*shape):
        where = draw(masked((*shape, k), np.int32, st.integers(0, 2**31 - 1)))
        weights = np.ma.MaskedArray(draw(arrays(np.float32, where.shape, elements=single)), where.mask)
        return TopSources(where, weights, draw(masked(shape, np.float32, single)))

    figures = {
        name: draw(masked((*lead, len(positions)), np.float32, single))
        for name in ("entropy", "sink_share", "nowhere", "distance")
    }
    return AttentionSummary(
        positions=positions,
        ids=draw(st.lists(ids, max_size=9)),
        n_heads=n_heads,
        **figures,
        layers=sources(len(n_heads), len(positions)),
        overall=sources(len(positions)),
        head_positions=kept,
        heads=sources(*lead, len(kept)),
        pieces=draw(pieces),
        check=draw(checks),
    )


@st.composite
def lenses(draw):
    positions = sorted(draw(st.sets(st.integers(1, 20), min_size=1, max_size=4)))
    shape = (len(positions), draw(st.integers(1, 4)))
    deep = (*shape, draw(st.integers(1, 3)))
    return Lens(
        positions=positions,
        ids=draw(st.lists(ids, min_size=len(positions), max_size=len(positions))),
        **{name: draw(masked(shape, np.int64, st.integers(1, 2**50))) for name in ("rank", "final_rank")},
        **{name: draw(masked(shape, np.float64, finite)) for name in ("logprob", "entropy", "kl")},
        top_ids=draw(masked(deep, np.int64, ids)),
        top_logprob=draw(masked(deep, np.float64, finite)),
        pieces=draw(pieces),
        agreement=draw(st.one_of(st.none(), finite)),
        check=draw(checks),
    )


@st.composite
def attributions(draw):
    targets = sorted(draw(st.sets(st.integers(1, 20), min_size=1, max_size=4)))
    together, kind = draw(st.booleans()), draw(st.sampled_from(["logit", "foil", "logprob"]))
    rows = 1 if together else len(targets)
    shape = (rows, draw(st.integers(1, 3)))
    named = st.lists(ids, min_size=len(targets), max_size=len(targets))
    return DirectAttribution(
        kind=kind,
        together=together,
        targets=targets,
        target_ids=draw(named),
        foil_ids=draw(named) if kind == "foil" else None,
        **{
            name: draw(arrays(np.float64, rows, elements=finite))
            for name in ("value", "entry", "bias", "curvature", "residual")
        },
        **{name: draw(arrays(np.float64, shape, elements=finite)) for name in ("blocks", "other")},
        **{name: draw(masked(shape, np.float64, finite)) for name in ("attention", "mlp")},
        heads=draw(masked((*shape, draw(st.integers(0, 2))), np.float64, finite)),
        unsplit=draw(st.dictionaries(st.integers(0, 3), text, max_size=2)),
        pieces=draw(pieces),
        agreement=draw(st.one_of(st.none(), finite)),
        check=draw(checks),
    )


def without_heads():
    heads = looked().found.heads
    none = TopSources(heads.sources[..., :0, :], heads.weights[..., :0, :], heads.kept[..., :0])
    return looked(head_positions=[], heads=none).found


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.one_of(summaries(), lenses(), attributions()), st.dictionaries(text, st.one_of(st.none(), text), max_size=2))
@example(looked().found, {})
@example(without_heads(), {})
@example(lensed().found, {"a": 1})
@example(added().found, {})
def test_a_reading_comes_back_to_the_bit(found, made):
    one = Reading(7, found, made)
    writer = TapeWriter.create(None, Setting())
    with writer.database.transaction() as connection:
        number = put_reading(connection, one)
        again = read_reading(connection, number)
        assert number == again.number == 0 and read_by(again) == read_by(one)
        assert dict(again.question) == dict(one.question)
        assert put_reading(connection, again) == 0  # what was read is the same question
    assert writer.database.rows("select count(*) from reading") == [(1,)]
    assert type(found).from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))).to_dict() == found.to_dict()
    writer.close().close()


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, st.integers(0, 20), elements=st.floats(width=32)))
@example(np.array([0.1, -0.0, 1 / 3, 1e-45, 3.4028235e38, 16777217, 1e12, 1e-12, np.nan, np.inf], np.float32))
def test_few_digits_say_a_float32(values):
    short = shortest(values)
    assert short.astype(np.float32).tobytes() == values.tobytes()
    usual = np.isfinite(values) & (np.abs(values) > 1e-11) & (np.abs(values) < 1e11)
    for found in short[usual].tolist():
        assert len(re.sub(r"e.*|[-.]", "", repr(found)).strip("0")) <= 9
    assert shortest(np.array([0.1], np.float32)).tolist() == [0.1]


def test_added_to_a_finished_tape(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    assert add_readings(path, [looked(), lensed()]) == [0, 1]
    assert add_readings(path, iter([added()])) == [2] and add_readings(path, []) == []
    assert add_explanations(path, [explained()]) == [0]
    assert verify(path) == []
    with open_tape(path) as tape:
        assert [one.number for one in tape.readings] == [0, 1, 2]
        assert [read_by(one) for one in tape.readings] == [read_by(one) for one in (looked(), lensed(), added())]
        assert tape.readings[1] is tape.readings[1]
        assert repr(tape.readings[0]) == "Reading(0: trace 0, attention at 2 positions)"
        assert [one.kind for one in tape.readings] == list(READ)
        assert [tape.readings_of(0, kind) for kind in READ] == [[one] for one in tape.readings]
        assert tape.readings_of(1, "lens") == []
        with pytest.raises(IndexError, match="no reading 3; the tape has 3"):
            tape.readings[3]
        with open_tape(tape.save(tmp_path / "copy.tape")) as copy:
            assert read_by(copy.readings[0]) == read_by(looked()) and copy.verify() == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cat.tape", "copy.tape"]


def test_another_tool_reads_them(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    add_readings(path, [lensed(trace=2), looked()])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "select kind, json_extract(question, '$.positions[1]'), trace from reading"
        ).fetchall()
        assert rows == [("lens", 5, 2), ("attention", 4, 0)]
        (body,) = connection.execute("select body from reading where number = 0").fetchone()
    assert json.loads(zlib.decompress(body))["rank"][1] == [7, None, 7]


def test_while_it_is_open(tmp_path):
    with open_tape(write_tape(tmp_path / "cat.tape")) as tape:
        assert len(tape.readings) == 0 and tape.readings_of(0, "lens") == []
        add_readings(tape.path, [lensed()])
        assert len(tape.readings) == 0
        tape.refresh()
        assert len(tape.readings) == 1


# what replaces what

LENS, DIRECT = (
    {"positions": [3, 5], "top_k": 3},
    {"positions": [3, 5], "of": "logit", "together": False, "against": None},
)
LOOK = {"positions": [3, 5], "heads": [5], "top_k": 4}
FOIL = {"positions": [3, 5], "of": "foil", "together": False, "against": [8, 9]}


@pytest.mark.parametrize(
    ("newer", "older", "all_of_it"),
    [
        (LENS, LENS, True),
        (LENS, {**LENS, "positions": [5]}, True),
        (LENS, {**LENS, "positions": [4]}, False),
        (LENS, {**LENS, "top_k": 2}, True),
        (LENS, {**LENS, "top_k": 4}, False),
        (LOOK, {**LOOK, "heads": []}, True),
        (LOOK, {**LOOK, "heads": [3]}, False),
        (LOOK, {"positions": [5], "heads": [5], "top_k": 1}, True),
        (DIRECT, {**DIRECT, "positions": [3]}, True),
        (DIRECT, {**DIRECT, "of": "logprob"}, False),
        (DIRECT, {**DIRECT, "together": True}, False),
        ({**DIRECT, "together": True}, {**DIRECT, "together": True}, True),
        ({**DIRECT, "together": True}, {**DIRECT, "together": True, "positions": [3]}, False),
        ({**DIRECT, "together": True}, DIRECT, False),
        (FOIL, {**FOIL, "positions": [5], "against": [9]}, True),
        (FOIL, {**FOIL, "positions": [5], "against": [8]}, False),
    ],
)
def test_what_says_all_of_another(newer, older, all_of_it):
    assert covers(newer, older) is all_of_it


def test_the_wider_replaces_the_narrower(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    few = [lensed(**{name: value[:1] for name, value in vars(lensed().found).items() if np.ndim(value)})]
    middle = [lensed(**{name: value[1:] for name, value in vars(lensed().found).items() if np.ndim(value)})]
    assert add_readings(path, [*few, looked(), *middle, lensed(trace=2)]) == [0, 1, 2, 3]
    assert add_readings(path, [lensed()]) == [0]  # in the place of both
    with open_tape(path) as tape:
        assert [(one.number, one.kind, one.trace) for one in tape.readings] == [
            (0, "lens", 0), (1, "attention", 0), (3, "lens", 2),
        ]  # fmt: skip
        assert read_by(tape.readings[0]) == read_by(lensed())
    assert add_readings(path, [*few]) == [4]  # what is narrower stands beside it
    with open_tape(path) as tape:
        assert [one.number for one in tape.readings_of(0, "lens")] == [4, 0]  # the widest last
    assert add_readings(path, [added(), added(kind="logprob"), added(together=True), added()]) == [5, 6, 7, 5]
    assert verify(path) == []


def test_a_run_that_is_dropped_takes_its_own_along(tmp_path):
    path = write_tape(tmp_path / "cat.tape")
    add_readings(path, [lensed(trace=2), looked()])
    writer = TapeWriter.resume(path)
    write_run(writer)
    writer.drop_last()
    writer.drop_last()
    writer.close().close()
    assert verify(path) == []
    with open_tape(path) as tape:
        assert [one.number for one in tape.readings] == [1] and len(tape.traces) == 2


@pytest.mark.parametrize("version", range(1, READ_SINCE))
def test_an_older_tape_is_brought_up_to_date(tmp_path, version):
    path = Path(shutil.copy(GOLDEN / f"v{version}.tape", tmp_path / "cat.tape"))
    with open_tape(path) as tape:
        assert len(tape.readings) == 0
        texts = [trace.text for trace in tape]
    assert add_readings(path, [looked(), added()]) == [0, 1] and verify(path) == []
    with open_tape(path) as tape:
        assert [trace.text for trace in tape] == texts and tape.state == "complete"
        assert read_by(tape.readings[1]) == read_by(added())


def test_a_tape_whose_recorder_was_killed(tmp_path):
    path = killed_tape(tmp_path)
    assert add_readings(path, [lensed()]) == [0] and verify(path) == []
    with open_tape(path) as tape:
        assert tape.state == "partial" and read_by(tape.readings[0]) == read_by(lensed())


def test_a_table_of_others_in_an_older_tape(tmp_path):
    path = shutil.copy(GOLDEN / "v4.tape", tmp_path / "cat.tape")
    alter(path, "create table reading (number, trace, kind)")
    alter(path, "insert into reading values (0, 77, 'good')")
    before = path.read_bytes()
    with open_tape(path) as tape:
        assert len(tape.readings) == 0 and tape.verify() == []
    with pytest.raises(UsageError, match="reading already exists"):
        add_readings(path, [lensed()])
    assert path.read_bytes() == before


# what stands in the way


def test_what_is_no_reading():
    with pytest.raises(UsageError, match="dict is no reading"):
        Reading(0, {})
    with pytest.raises(UsageError, match="'made' of a reading"):
        Reading(0, lensed().found, {"x": float("nan")})


@pytest.mark.parametrize("name", ["entropy", "nowhere", "layers", "overall", "heads"])
def test_shapes_of_attention_must_fit(name):
    given = getattr(looked().found, name)
    other = TopSources(given.sources[:1], given.weights, given.kept) if isinstance(given, TopSources) else given[:1]
    with pytest.raises(UsageError, match=name):
        looked(**{name: other})


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (lambda: lensed(trace=4), "a reading of trace 4 .*\n.*has 4 traces"),
        (lambda: lensed(trace=-1), "of trace -1"),
        (lambda: lensed(positions=[3, 5, 9]), "position 9 of trace 0, which has 9 tokens"),
        (lambda: lensed(trace=1), "position 8 of trace 1, which has 8 tokens"),
        (lambda: lensed(ids=[0, 2, 6]), "token 6 at position 8, and trace 0 has token 5"),
        (lambda: lensed(positions=[0, 5, 8]), "not in ascending order, from 1"),
        (lambda: lensed(positions=[5, 3, 8], ids=[2, 0, 5]), "not in ascending order"),
        (lambda: lensed(rank=np.zeros((3, 3), int)), "a rank below 1"),
        (lambda: lensed(logprob=np.full((3, 3), 0.1)), "log-probability above 0"),
        (lambda: lensed(kl=np.full((3, 3), -0.1)), "a divergence below 0"),
        (lambda: lensed(top_ids=np.full((3, 3, 2), -1)), "an id below 0"),
        (lambda: looked(ids=[*SEQUENCE, 5]), "position 9 of trace 0"),
        (lambda: looked(ids=SEQUENCE[:4]), "rows past its tokens"),
        (lambda: looked(ids=(*SEQUENCE[:8], 6)), "token 6 at position 8"),
        (lambda: looked(head_positions=[5]), "heads of a position that it does not have"),
        (lambda: looked(overall=tops([[0, 3], [3, 0]], [[0.6, 0.4]] * 2, [1, 1])), "sources that its rows cannot see"),
        (lambda: looked(overall=tops([[0, 1], [3, -1]], [[0.6, 0.4]] * 2, [1, 1])), "sources that its rows cannot see"),
        (lambda: looked(overall=tops([[0, 1]] * 2, [[1.6, 0.4]] * 2, [1, 1])), "weights beside 0 .. 1"),
        (lambda: looked(overall=tops([[0, 1]] * 2, [[0.6, 0.4]] * 2, [2, 1])), "more than all of a row"),
        (lambda: looked(entropy=floats(*[[[-1.0] * 2] * 2] * 3)), "an entropy or a distance below 0"),
        (lambda: looked(sink_share=floats(*[[[2.0] * 2] * 2] * 3)), "shares beside 0 .. 1"),
        (lambda: added(value=[3.0, 3.0]), "parts do not add up to its value"),
        (lambda: added(other=np.ones((2, 2))), "the parts of a block do not add up"),
        (lambda: added(target_ids=[0, 3]), "token 3 at position 5"),
    ],
)  # fmt: skip
def test_a_reading_of_something_else_is_refused(tmp_path, one, said):
    path = write_tape(tmp_path / "cat.tape")
    before = path.read_bytes()
    with pytest.raises(UsageError, match=said):
        add_readings(path, [lensed(), one()])
    assert path.read_bytes() == before


def test_too_much_for_a_tape_is_refused(tmp_path, monkeypatch):
    path = write_tape(tmp_path / "cat.tape")
    before = path.read_bytes()
    monkeypatch.setattr("tokentape.data.reading_rows.LONGEST_VALUE", 500)
    with pytest.raises(UsageError, match="lens at 3 positions is too much for a tape"):
        add_readings(path, [lensed()])
    with open_tape(path) as tape:
        assert len(tape.readings) == 0 and tape.verify() == []
    assert path.read_bytes() == before


def rewritten(path, number, change):
    """The body of a reading with something else in it, behind tokentape's back."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        (body,) = connection.execute("select body from reading where number = ?", (number,)).fetchone()
        text = change(zlib.decompress(body).decode())
        new = text if isinstance(text, bytes) else zlib.compress(text.encode())
        connection.execute("update reading set body = ? where number = ?", (new, number))


CHANGES = [
    "update reading set trace = 2 where number = 0",
    "update reading set trace = 9 where number = 0",
    "update reading set kind = 'lens' where number = 0",
    "update reading set kind = 'tarot' where number = 0",
    "update reading set question = replace(question, '3', '4') where number = 1",
    "update reading set made = replace(made, '0.1.0', '0.1.1')",
    "update reading set body = zeroblob(9) where number = 0",
    "update reading set number = 5 where number = 1",
    "delete from reading where number = 1",
    "drop table reading",
    "alter table reading add column extra",
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_altered_reading_is_found(tmp_path, change):
    path = write_tape(tmp_path / "cat.tape")
    add_readings(path, [looked(), lensed()])
    alter(path, change)
    assert verify(path)
    with contextlib.suppress(DamagedTape):  # in our own words, or not at all
        open_tape(path).readings[0]


@pytest.mark.parametrize(
    ("number", "change", "said"),
    [
        (0, lambda text: text.replace('"sources":[[0,2]', '"sources":[[0,3]'), "sources that its rows cannot see"),
        (0, lambda text: text.replace('"sources":[[0,2]', '"sources":[[0,2,1]'), "reading 0: "),
        (0, lambda text: text.replace('"positions":[3', '"positions":[2'), "does not answer what its row says"),
        (0, lambda text: text.replace('"n_heads":[2', '"n_heads":[3'), "has the shape"),
        (1, lambda text: text.replace("-9.5", "-1e999"), "not finite"),
        (1, lambda text: text.replace("-9.5", "NaN"), "NaN is no number"),
        (1, lambda text: text.replace("-9.5", '"nan"'), "not finite"),
        (1, lambda text: text.replace("-9.5", "{}"), "reading 1"),
        (1, lambda text: text.replace('"rank":', '"range":'), "reading 1"),
        (1, lambda text: text[:-5], "reading 1"),
        (1, lambda text: zlib.compress(text.encode())[:-3], "cut short"),
        (1, lambda text: zlib.compress(text.encode()) + b"x", "too long"),
        (1, lambda text: text.encode(), "incorrect header check"),
    ],
)
def test_readings_that_contradict_their_tape(tmp_path, number, change, said):
    """Also where no hash protects them, as in a tape that went on being recorded."""
    path = write_tape(tmp_path / "cat.tape")
    add_readings(path, [looked(), lensed()])
    rewritten(path, number, change)
    writer = TapeWriter.resume(path)
    with open_tape(path) as tape:
        problems = " / ".join(map(str, tape.verify()))
        assert re.search(said, problems), problems
        if "cannot see" not in said:
            with pytest.raises(DamagedTape):
                tape.readings[number]
    writer.close("partial").close()


def test_a_small_body_does_not_ask_for_the_memory_of_the_machine(tmp_path, monkeypatch):
    path = write_tape(tmp_path / "cat.tape")
    add_readings(path, [lensed()])
    monkeypatch.setattr("tokentape.data.reading_rows.LONGEST_VALUE", 100)
    with open_tape(path) as tape, pytest.raises(DamagedTape, match="too long"):
        tape.readings[0]


def test_a_question_that_nobody_understands(tmp_path):
    """What is put beside it must not replace it, nor pass it over."""
    path = write_tape(tmp_path / "cat.tape")
    add_readings(path, [lensed()])
    writer = TapeWriter.resume(path)
    writer.database.rows("update reading set question = '{}'")
    writer.close().close()
    with pytest.raises(DamagedTape, match="reading 0 is damaged"):
        add_readings(path, [lensed()])
