"""Files of traffic and prompts: the real formats, and what is said of files that are none."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.errors import UsageError
from tokentape.load.workload_files import read_workload

MATERIAL = Path(os.environ.get("TOKENTAPE_MATERIAL", Path(__file__).resolve().parents[3] / "shared" / "material"))
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
S = 1_000_000_000


def file(tmp_path, text, name="traffic.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_azure_of_2023_and_2024(tmp_path):
    old = AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    found = read_workload(file(tmp_path, old))
    assert list(found.times_ns) == [0, 4_314_579_000]
    assert (list(found.n_prompt), list(found.n_new), found.source) == ([374, 396], [44, 109], "azure")
    new = AZURE + "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 02:00:01+02:00,30,0\n"
    found = read_workload(file(tmp_path, new))
    assert list(found.times_ns) == [0, 990_070_000]
    turn = found.conversation(1).turns[0]
    assert (turn.n_prompt, turn.n_new, turn.exact) == (30, 1, True)
    assert list(read_workload(tmp_path / "traffic.csv", n_new=3).n_new) == [3, 1]


@pytest.mark.material
@pytest.mark.skipif(not (MATERIAL / "traffic").exists(), reason="the test material is absent")
@pytest.mark.parametrize(("name", "rows", "mean"), [("conv", 19366, 1154.7), ("code", 8819, 2047.8)])
def test_the_real_azure_traces(name, rows, mean):
    found = read_workload(MATERIAL / "traffic" / f"AzureLLMInferenceTrace_{name}.csv")
    assert found.n == rows
    assert sum(found.n_prompt) / rows == pytest.approx(mean, abs=0.1)
    assert list(found.times_ns) == sorted(found.times_ns)
    assert 3400 * S < found.times_ns[-1] < 3700 * S


def test_mooncake(tmp_path):
    # the two rows that the format's own description shows
    rows = [
        {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [*range(46, 58), 2353, 2354]},
        {"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [*range(46, 58), 2366]},
    ]
    found = read_workload(file(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl"))
    assert list(found.times_ns) == [0, 3_053_000_000]
    one, two = found.conversation(0).turns[0], found.conversation(1).turns[0]
    assert one.blocks[:12] == two.blocks[:12] and len(one.blocks) == 14
    assert (one.n_prompt, two.n_new) == (6955, 26)


def test_sharegpt(tmp_path):
    said = [
        {"from": "gpt", "value": "an answer to nothing"},
        {"from": "human", "value": "What is a tape?"},
        {"from": "gpt", "value": "x" * 40},
        {"from": "human", "value": "And a trace?"},
    ]
    text = json.dumps([{"id": "q1", "conversations": said}, {"id": "q2", "conversations": said[:1]}])
    found = read_workload(file(tmp_path, text, "s.json"))
    assert found.n == 1
    talk = found.conversation(0)
    assert talk.name == "q1"
    assert [turn.messages[0]["content"] for turn in talk.turns] == ["What is a tape?", "And a trace?"]
    assert [turn.n_new for turn in talk.turns] == [10, None]
    assert found.conversation(1).name == "q1 (2)"
    assert [turn.n_new for turn in read_workload(file(tmp_path, text, "s.json"), n_new=7).conversation(0).turns] == [
        7,
        7,
    ]


def test_json_lines(tmp_path):
    rows = [
        {"prompt": "Hello", "max_tokens": 5},
        {"prompt": [1, 2, 3]},
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]},
        {"text": "once"},
    ]
    found = read_workload(file(tmp_path, "\n".join(map(json.dumps, rows)) + "\n\n", "p.jsonl"), n_new=9)
    turns = [found.conversation(i).turns[0] for i in range(4)]
    assert [turn.prompt for turn in turns] == ["Hello", (1, 2, 3), None, "once"]
    assert [turn.n_new for turn in turns] == [5, 9, 9, 9]
    assert turns[2].messages[1]["content"] == "Hi" and found.times_ns is None
    timed = [{"prompt": "b", "timestamp": 2.5}, {"prompt": "a", "timestamp": 0.5}]
    found = read_workload(file(tmp_path, "\n".join(map(json.dumps, timed)), "p.jsonl"))
    assert found.times_ns == (500_000_000, 2_500_000_000) and found.conversation(0).turns[0].prompt == "a"


def test_lines_of_text(tmp_path):
    found = read_workload(file(tmp_path, "one\n\ntwo\n", "p.txt"))
    assert [found.conversation(i).turns[0].prompt for i in range(3)] == ["one", "two", "one"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "time,in,out\n1,2,3\n", "line 1: the columns time, in, out"),
        ("a.csv", AZURE + "2023-11-16 18:15:46.68,374\n", "line 2: the row '2023-11-16 18:15:46.68,374'"),
        ("a.csv", AZURE + "2023-11-16 18:15:46.68,374,44\nyesterday,1,2\n", "line 3: the row 'yesterday,1,2'"),
        ("a.csv", AZURE + "2023-11-16 18:15:46.68,-4,44\n", "line 2"),
        (
            "a.csv",
            AZURE + "2023-11-16 18:15:46.68,99999999999,44\n",
            "line 2: the row '2023-11-16 18:15:46.68,99999999999,44'",
        ),
        ("a.csv", AZURE, "has no rows"),
        ("m.jsonl", '{"timestamp": 1, "input_length": 5}', "line 1: the fields timestamp, input_length"),
        ("m.jsonl", '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": ["a"]}', "hash_ids ['a']"),
        ("m.jsonl", '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": [1, 2]}', "2 hash_ids for 5"),
        ("m.jsonl", '{"timestamp": 1, "input_length": true, "output_length": 1}', "line 1"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": ', "line 2: no JSON"),
        ("p.jsonl", '{"prompt": "a"}\n[1]', "line 2: '[1]'"),
        ("p.jsonl", '{"question": "a"}', "line 1: the fields question"),
        ("p.jsonl", '{"prompt": "a", "max_tokens": 0}', "line 1: max_tokens 0"),
        ("p.jsonl", '{"prompt": "a", "timestamp": "noon"}', "line 1: timestamp noon"),
        ("s.json", '[{"id": 1}]', "entry 0"),
        ("s.json", '[{"id": 1, "conversations": []}]', "no conversation with words of a user"),
        ("s.json", "[{]", "line 1: no JSON"),
        ("e.txt", "  \n", "is empty"),
    ],
)
def test_a_file_of_the_wrong_format_says_where_and_what(tmp_path, name, text, says):
    with pytest.raises(UsageError) as error:
        read_workload(file(tmp_path, text, name))
    assert says in error.value.what and error.value.why and error.value.fix


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_workload(tmp_path / "nowhere.csv")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_workload(tmp_path / "latin.txt")
    with pytest.raises(UsageError, match="no format 'csv'"):
        read_workload(tmp_path / "nowhere.csv", "csv")


@given(st.text(max_size=200), st.sampled_from(["azure", "mooncake", "sharegpt", "jsonl", "text"]))
def test_no_text_breaks_a_reader(tmp_path_factory, text, form):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = read_workload(path, form)
    except UsageError:
        return
    assert found.n > 0 and found.conversation(0).turns
