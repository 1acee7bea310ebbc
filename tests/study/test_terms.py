"""Terms and forms: what they are worth, and that a knee is a maximum."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tokentape.study.law import terms
from tokentape.study.law.terms import Loads, forms_of

positive = st.floats(1.0, 1e4)


def grid(kind: str, contexts: list[float], batches: list[float]) -> Loads:
    pairs = [(c, b) for c in contexts for b in batches]
    return Loads.of(kind, [c for c, _ in pairs], [b for _, b in pairs])


@given(positive, st.floats(0.1, 100.0), st.lists(positive, min_size=1, max_size=8))
def test_a_constant_and_a_knee_are_the_larger_of_two(floor: float, slope: float, batches: list[float]) -> None:
    loads = Loads.of("decode", [1.0] * len(batches), batches)
    knee = terms._bent(terms.SEQUENCES, "beyond", floor / slope, "sequences")
    found = floor * terms.CONSTANT.value(loads) + slope * knee.value(loads)
    assert np.allclose(found, np.maximum(floor, slope * np.array(batches)))


def test_values_of_the_terms() -> None:
    loads = Loads.of("prefill", [128.0], [3.0])
    assert terms.TOKENS.value(loads).tolist() == [384.0]
    assert terms.SQUARE.value(loads).tolist() == [3 * 128.0 * 128.0]
    step = Loads.of("decode", [128.0], [3.0])
    assert terms.TOKENS.value(step).tolist() == [3.0]
    assert terms.KEY_VALUE.value(step).tolist() == [384.0]
    assert terms.CONTEXT.value(step).tolist() == [128.0]


def test_what_does_not_vary_is_left_out() -> None:
    names = {term.name for form in forms_of(grid("decode", [64, 128, 256], [2])) for term in form.terms}
    assert "sequences" not in names and {"constant", "key-value"} <= names


def test_forms_are_all_different_and_the_plainest_comes_first() -> None:
    found = forms_of(grid("decode", [64, 128, 256, 512, 1024], [1, 2, 4, 8]))
    names = [tuple(sorted(term.name for term in form.terms)) for form in found]
    assert len(set(names)) == len(names)
    assert found[0].name == "constant + key-value"


def test_a_form_gives_a_column_for_each_term() -> None:
    loads = grid("decode", [64, 128], [1, 2])
    form = terms.Form((terms.CONSTANT, terms.KEY_VALUE))
    assert form.matrix(loads).tolist() == [[1, 64], [1, 128], [1, 128], [1, 256]]


class Machine:
    """A workload whose counts are round numbers."""

    def __init__(self, tensor_parallel: int = 1) -> None:
        self.tensor_parallel = tensor_parallel

    def decode(self, context: float, batch: float) -> terms.Work:  # type: ignore[name-defined]
        from tokentape.study.cost.work import Work

        return Work(10, 1000.0, 8.0 * context * batch, 8.0 * batch, 500.0 * batch, 2.0 * context * batch, 40.0)

    prefill = decode


def test_devices_share_bytes_and_operations_but_not_layers() -> None:
    alone = Loads.of("decode", [64.0], [2.0], [Machine()]).work
    four = Loads.of("decode", [64.0], [2.0], [Machine(4)]).work
    assert alone is not None and four is not None
    assert {name: (alone[name] / four[name]).item() for name in alone} == {
        "layers": 1.0,
        "reduce_bytes": 1.0,
        "weight_bytes": 4.0,
        "kv_bytes": 4.0,
        "flops": 4.0,
        "attention_flops": 4.0,
    }


def test_messages_beyond_a_size() -> None:
    loads = Loads.of("decode", [64.0], [2.0], [Machine()])
    # 40 bytes in 2 x 10 messages: 2 bytes each; half of each lies beyond one byte
    assert terms._large_messages(1.0, loads).tolist() == [20.0]
    assert terms._large_messages(2.0, loads).tolist() == [0.0]
