"""Files that are none, of another tool, cut off, or hostile: an error with what, why and what to do, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tokentape.imports.reading as reading
import tokentape.imports.results as results
from tokentape.errors import TapeExists, TokentapeError, UsageError
from tokentape.imports.importing import import_results

RESULTS = Path(__file__).parent / "results"
JSONS = ["vllm.json", "aiperf.jsonl", "guidellm.json", "inference-perf.json", "llama-bench.json"]


def refused(tmp_path: Path, text: str | bytes, name: str = "given.json", **options: Any) -> UsageError:
    (file := tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UsageError) as caught:
        import_results(file, tmp_path / "made.tape", **options)
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing is left"
    assert caught.value.what and caught.value.why and caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("text", "what", "why"),
    [
        ("", "is empty", "nothing was measured"),
        ("  \n", "is empty", "nothing was measured"),
        ("<html>", "is no JSON", "Expecting value"),
        (b"\xff\xfe", "is no JSON", "not UTF-8"),
        ('{"a": 1', "is no JSON", "Expecting"),
        ('{"a": 1}\n{"b": ', "is no JSON", "line 2: Expecting value"),
        ('{"a": NaN}', "is no JSON", "NaN is no number"),
        ("[" * 100_000, "is no JSON", "nested too deeply"),
        ('{"a": ' + "9" * 10_000 + "}", "is no JSON", "digits"),
        ("[]", "results of no tool", "vllm, aiperf"),
        ("3", "results of no tool", "vllm, aiperf"),
        ('{"a": 1}', "results of no tool", "vllm, aiperf"),
        ("build_commit,build_number\n", "averages of llama-bench", "single measurements"),
        ("CREATE TABLE IF NOT EXISTS llama_bench (\n", "averages of llama-bench", "single measurements"),
    ],
)
def test_what_is_no_result(tmp_path: Path, text: str | bytes, what: str, why: str) -> None:
    error = refused(tmp_path, text)
    assert what in error.what and why in error.why


def test_real_averages_are_refused_with_the_way_to_samples(tmp_path: Path) -> None:
    for name in ("llama-bench.csv", "llama-bench.sql"):
        assert refused(tmp_path, (RESULTS / name).read_bytes(), name).fix == "llama-bench -o json"
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["aiperf.json", "inference-perf-summary.json"])
def test_a_summary_alone_names_the_file_beside_it(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, (RESULTS / name).read_bytes())
    assert "the summary alone" in error.what and "the file beside it" in error.why


def test_vllm_without_details(tmp_path: Path) -> None:
    told = json.loads((RESULTS / "vllm.json").read_text("utf-8"))
    text = json.dumps({name: value for name, value in told.items() if not isinstance(value, list)})
    assert "--save-detailed" in refused(tmp_path, text).why


def test_another_tool_than_said(tmp_path: Path) -> None:
    error = refused(tmp_path, (RESULTS / "vllm.json").read_bytes(), tool="guidellm")
    assert "no results of guidellm" in error.what and "those of vllm" in error.why and error.fix == "leave --from out"
    error = refused(tmp_path, (RESULTS / "vllm.json").read_bytes(), tool="vlm")
    assert error.fix == "did you mean vllm?"


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    assert "has no part 3" in refused(tmp_path, (RESULTS / "llama-bench.json").read_bytes(), part=3).what
    assert "has no part -1" in refused(tmp_path, (RESULTS / "vllm.json").read_bytes(), part=-1).what


def test_no_file_a_folder_and_a_tape_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read") as caught:
        import_results(tmp_path / "none.json")
    assert "No such file" in caught.value.why
    with pytest.raises(UsageError, match="is no file"):
        import_results(tmp_path)
    (taken := tmp_path / "taken.tape").write_bytes(b"mine")
    with pytest.raises(TapeExists):
        import_results(RESULTS / "vllm.json", taken)
    assert taken.read_bytes() == b"mine"
    with pytest.raises(TapeExists, match="is no tape"):
        import_results(RESULTS / "vllm.json", taken, overwrite=True)
    assert taken.read_bytes() == b"mine"
    taken.unlink()
    for name in ("vllm.json", "aiperf.jsonl"):
        with import_results(RESULTS / name, taken, overwrite=True) as tape:
            assert tape.notes["imported"]["file"] == name


def test_a_file_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST_BYTES", 100)
    assert "too large" in refused(tmp_path, "[" + " " * 200 + "]").what


def _set(*path: str | int) -> Callable[[Any, Any], None]:
    def put(document: Any, value: Any) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = value

    return put


CHANGES = [
    ("vllm.json", _set("ttfts"), "x"),
    ("vllm.json", _set("ttfts", 0), None),
    ("vllm.json", _set("itls"), [[0.1]]),
    ("vllm.json", _set("itls", 1), {"a": 1}),
    ("vllm.json", _set("itls", 1, 0), -1),
    ("vllm.json", _set("itls", 1, 0), True),
    ("vllm.json", _set("start_times", 2), 1e300),
    ("vllm.json", _set("start_times", 2), 4e18),
    ("vllm.json", _set("start_times", 2), 1e12),
    ("vllm.json", _set("output_lens", 0), -3),
    ("vllm.json", _set("output_lens", 0), 2.5),
    ("vllm.json", _set("errors", 0), 5),
    ("guidellm.json", _set("benchmarks", 0), None),
    ("guidellm.json", _set("benchmarks"), []),
    ("guidellm.json", _set("benchmarks", 0, "requests"), None),
    ("guidellm.json", _set("benchmarks", 0, "requests", "successful"), {}),
    ("guidellm.json", _set("benchmarks", 0, "requests", "successful"), []),
    ("guidellm.json", _set("benchmarks", 0, "requests", "successful", 0, "info"), []),
    ("guidellm.json", _set("benchmarks", 0, "scheduler_metrics", "measure_end_time"), "soon"),
    ("inference-perf.json", _set(0, "start_time"), None),
    ("inference-perf.json", _set(0, "info"), "x"),
    ("inference-perf.json", _set(3), 7),
    ("inference-perf.json", _set(0, "info", "response_metrics", "chunk_times"), [1.0]),
    ("llama-bench.json", _set(0, "samples_ns"), None),
    ("llama-bench.json", _set(0, "samples_ns"), []),
    ("llama-bench.json", _set(0, "samples_ns", 0), 0),
    ("llama-bench.json", _set(0, "n_prompt"), "many"),
]


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_a_value_that_is_not_as_it_must_be(tmp_path: Path, number: int) -> None:
    name, change, value = CHANGES[number]
    document = json.loads((RESULTS / name).read_text("utf-8"))
    change(document, value)
    if name == "llama-bench.json":
        document = document[:1]
    refused(tmp_path, json.dumps(document))


@pytest.mark.parametrize("name", JSONS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_off_anywhere(tmp_path: Path, name: str, data: st.DataObject) -> None:
    whole = (RESULTS / name).read_bytes()
    cut = data.draw(st.integers(0, len(whole.rstrip()) - 1))
    (file := tmp_path / "cut.json").write_bytes(whole[:cut])
    made = tmp_path / "made.tape"
    try:
        import_results(file, made, overwrite=True).close()
    except UsageError:
        assert not made.exists()
    else:  # lines, cut off between two of them
        assert name.endswith(".jsonl") and whole[:cut].rstrip().endswith(b"}")
        made.unlink()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in items for place in ((*at, key), *_places(one, (*at, key)))]


@pytest.mark.parametrize("name", JSONS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_is_taken_or_refused(name: str, data: st.DataObject, tmp_path_factory: Any) -> None:
    lines = (
        (RESULTS / name).read_text("utf-8").splitlines()
        if name.endswith("l")
        else [(RESULTS / name).read_text("utf-8")]
    )
    document = [json.loads(line) for line in lines][:3]
    _set(*data.draw(st.sampled_from(_places(document))))(document, data.draw(VALUES))
    folder = tmp_path_factory.mktemp("any")
    (file := folder / "given.json").write_text("\n".join(map(json.dumps, document)), "utf-8")
    try:
        import_results(file).close()
    except TokentapeError as error:
        assert error.what and error.why and error.fix


def test_nothing_is_left_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = results._put, []

    def failing(*given: Any) -> None:
        calls.append(given)
        if len(calls) > 3:
            raise OSError("disk full")
        real(*given)

    monkeypatch.setattr(results, "_put", failing)
    with pytest.raises(OSError, match="disk full"):
        import_results(RESULTS / "vllm.json", tmp_path / "made.tape")
    assert not list(tmp_path.iterdir())
