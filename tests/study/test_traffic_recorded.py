"""The formats of recorded traffic: what a load and a simulation read of them, and what is said of files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokentape.errors import UsageError
from tokentape.load.workload_files import read_workload
from tokentape.study.simulate.traffic import READERS
from tokentape.study.traffic.recorded import FORMATS, MOST_TOKENS, read_recorded, recorded_in

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
NS_OF_A_DAY = 86_400 * 10**9


def azure(*rows: str) -> list[int]:
    return recorded_in(AZURE + "\n".join(rows), Path("t.csv"), "azure").at_ns.tolist()


def test_the_times_of_azure_have_any_number_of_decimals_and_any_zone() -> None:
    assert azure("2023-11-16 18:15:46.6805900,374,44", "2023-11-16 18:15:50.9951690,396,109") == [0, 4_314_579_000]
    assert azure("2024-05-10 00:00:00.009930+00:00,1,1", "2024-05-10 02:00:01+02:00,1,1") == [0, 990_070_000]
    assert azure("2024-02-28 23:59:59.999999999Z,1,1", "2024-03-01 00:00:00-00:00,1,1") == [0, NS_OF_A_DAY + 1]


@given(st.integers(0, 200 * 365 * NS_OF_A_DAY), st.integers(0, 9))
def test_a_time_is_read_to_the_nanosecond_against_numpy(at_ns: int, decimals: int) -> None:
    at_ns -= at_ns % 10 ** (9 - decimals)
    text = str(np.datetime64(at_ns, "ns")).replace("T", " ")
    text = text[: len("2023-11-16 18:15:46") + (1 + decimals if decimals else 0)]
    assert azure("1970-01-01 00:00:00,1,1", f"{text},1,1")[1] == at_ns


def test_columns_are_found_by_their_names() -> None:
    text = "Model,GeneratedTokens,TIMESTAMP,ContextTokens\na,5,2023-11-16 18:15:46,7\n"
    found = recorded_in(text, Path("t.csv"), "azure")
    assert (found.n_prompt.tolist(), found.n_output.tolist(), found.blocks) == ([7], [5], None)


def test_rows_are_in_the_order_of_time_and_as_in_the_file_where_it_is_the_same() -> None:
    rows = [(5, 30), (1, 20), (5, 10), (1, 40)]
    text = "\n".join(
        json.dumps({"timestamp": at, "input_length": n, "output_length": 0, "hash_ids": [n]}) for at, n in rows
    )
    found = recorded_in(text, Path("t.jsonl"), "mooncake")
    assert found.at_ns.tolist() == [0, 0, 4_000_000, 4_000_000]
    assert found.n_prompt.tolist() == [20, 40, 30, 10] and found.blocks == [(20,), (40,), (30,), (10,)]
    # what asks for nothing is sent as a request for one token
    assert found.n_output.tolist() == [1, 1, 1, 1]


@given(
    st.sampled_from(sorted(FORMATS)),
    st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30),
)
def test_a_simulation_has_the_requests_of_a_load(
    tmp_path_factory: pytest.TempPathFactory, form: str, rows: list[tuple[int, int, int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / f"twins.{'csv' if form == 'azure' else 'jsonl'}"
    if form == "azure":
        lines = [f"2024-05-10 0{at // 3_600_000}:00:{at % 60:02}.5,{a},{b}" for at, a, b in rows]
        path.write_text(AZURE + "\n".join(lines))
    else:
        names = ("timestamp", "input_length", "output_length")
        path.write_text("\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows))
    sent, simulated = read_workload(path), READERS[form](path)
    turns = [sent.conversation(i).turns[0] for i in range(len(rows))]
    assert simulated.at_ns.tolist() == list(sent.times_ns or ())
    assert simulated.n_prompt.tolist() == [turn.n_prompt for turn in turns]
    assert simulated.n_output.tolist() == [turn.n_new for turn in turns]


@pytest.mark.parametrize(
    ("form", "text", "says"),
    [
        ("azure", "", "line 1: the columns "),
        ("azure", "a,b\n1,2\n", "line 1: the columns a, b"),
        ("azure", AZURE, "has no rows"),
        ("azure", AZURE + "2023-11-16 18:15:46\n", "line 2: the row '2023-11-16 18:15:46'"),
        ("azure", AZURE + "soon,1,2\n", "line 2: the row 'soon,1,2'"),
        ("azure", AZURE + "9999-11-16 18:15:46,1,2\n", "line 2: the row"),
        ("azure", AZURE + "2023-11-16 18:15:46.-1,1,2\n", "line 2: the row"),
        ("azure", AZURE + f"2023-11-16 18:15:46,1,{MOST_TOKENS + 1}\n", "line 2: the row"),
        ("azure", AZURE + f"2023-11-16 18:15:46,1,{'9' * 5000}\n", "line 2: the row"),
        ("azure", AZURE + f"2023-11-16 18:15:46,1,{'x' * 200_000}\n", "line 2: no CSV"),
        ("mooncake", '{"timestamp": 1}\n', "line 1: the fields timestamp"),
        ("mooncake", "\n[1]\n", "line 2: '[1]'"),
        ("mooncake", "{\n", "line 1: no JSON"),
        ("mooncake", '{"timestamp": 9e14, "input_length": 5, "output_length": 1}', "line 1: the fields"),
        ("mooncake", '{"timestamp": NaN, "input_length": 5, "output_length": 1}', "line 1: the fields"),
        ("mooncake", '{"timestamp": 1, "input_length": 99999999, "output_length": 1}', "line 1: 99999999 tokens"),
        ("mooncake", '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": [true]}', "hash_ids [True]"),
        ("mooncake", '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": [1, 2]}', "2 hash_ids for 5"),
    ],
)
def test_what_is_not_in_the_format_is_named_by_its_line(tmp_path: Path, form: str, text: str, says: str) -> None:
    path = tmp_path / "traffic.txt"
    path.write_text(text)
    with pytest.raises(UsageError) as raised:
        read_recorded(path, form)
    assert says in raised.value.what and raised.value.why and raised.value.fix
