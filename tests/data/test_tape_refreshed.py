"""A tape that is refreshed while it grows reads what is new, and says what one that is opened anew says."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import CAT, SETTING, step, token

import tokentape.data.reader as reader
from tokentape.data import Run, TapeWriter, TraceHead, open_tape
from tokentape.data.blocks import Draft, DraftTokens


def block(writer, run, first, n, traces):
    """``n`` steps as one block, a token for each trace in every second step, bytes and candidates of all kinds."""
    draft = Draft()
    for index in range(first, first + n):
        said = traces if index % 2 else traces[:1]
        columns = (
            4 + index,
            index,
            index % 5,
            None,
            1.5,
            index + 1,
            None,
            0,
            int(index % 7 == 6),
            None,
            None,
            None,
            None,
        )
        data = [CAT[: index % 5], None][: len(said)]
        pairs = [[(i, -float(i)) for i in range(index % 4)] or None, []][: len(said)]
        tokens = DraftTokens(len(said), list(said), [[one] * len(said) for one in columns], data, pairs)
        draft.add(1, [[one] for one in step(run, index, len(said))[1:]], tokens)
    writer.append_block(run, draft)


def told(tape):
    return [
        [
            trace.tokens["id"].tolist(),
            trace.tokens["position"].tolist(),
            trace.overshoot["step"].tolist(),
            trace.token_bytes,
            trace.candidates.ids.tolist(),
            trace.candidates.logprob.tolist(),
            trace.steps["index"].tolist(),
            trace.steps["end_ns"].tolist(),
        ]
        for trace in tape.traces
    ]


ACTS = st.lists(st.sampled_from(["block", "block", "rows", "lay_out", "run", "skip", "look"]), max_size=14)


@settings(max_examples=60, deadline=None)
@given(ACTS)
def test_a_refreshed_tape_says_what_a_new_one_says(tmp_path_factory, acts):
    path = tmp_path_factory.mktemp("grown") / "a.tape"
    writer = TapeWriter.create(path, SETTING)
    begun, n = writer.begin(Run((TraceHead(0, 1, None, None), TraceHead(1, 1, None, None)), {}, start_ns=0)), 0
    with open_tape(path) as watched:
        for act in acts:
            if act == "block":
                block(writer, begun.number, n, 3, begun.trace_numbers)
                n += 3
            elif act == "rows":
                writer.append([step(begun.number, n, 1)], [token(begun.trace_numbers[0], 4 + n, n, id=1)])
                n += 1
            elif act == "lay_out":
                writer.lay_out()
            elif act == "run":
                begun, n = writer.begin(Run((TraceHead(0, 1, None, None), TraceHead(1, 1, None, None)), {})), 0
            elif act == "skip":
                watched.refresh()  # and nothing is read
            watched.refresh()
            with open_tape(path) as new:
                assert told(watched) == told(new)
        writer.close().close()
        watched.refresh()
        with open_tape(path) as new:
            assert told(watched) == told(new)


def test_blocks_that_were_read_are_not_read_again(tmp_path, monkeypatch):
    decoded = []
    read = reader.read_blocks

    def counted(connection, run, last, **known):
        decoded.append(known["earlier"].span)
        return read(connection, run, last, **known)

    monkeypatch.setattr(reader, "read_blocks", counted)
    with TapeWriter.create(tmp_path / "a.tape", SETTING) as writer:
        begun = writer.begin(Run((TraceHead(0, 1, None, None), TraceHead(1, 1, None, None)), {}))
        with open_tape(tmp_path / "a.tape") as tape:
            for i in range(4):
                block(writer, begun.number, 3 * i, 3, begun.trace_numbers)
                tape.refresh()
                assert tape.traces[0].steps.n_rows == 3 * (i + 1)
        writer.end(begun.number, ["stop", "stop"])
    assert decoded == [(-1, -1, -1), (1, 0, 1), (1, 0, 2), (1, 0, 3)]
