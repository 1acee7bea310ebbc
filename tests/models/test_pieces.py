"""Bytes of tokens: joined they are the text, for every kind of tokenizer, whatever is written with it."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_models import byte_level
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.byt5 import ByT5Tokenizer
from transformers.tokenization_python import PythonBackend

from tokentape.models.decoders import byte_level_alphabet, compile_decoder
from tokentape.models.loading import DEMO
from tokentape.models.pieces import Pieces, pieces_of, spelling_of

CORPUS = [
    "The cat sat on the mat, and the dog didn't. Once upon a time there was a cat.",
    "猫坐在垫子上。从前有一只猫。",
    "Émile 👩‍👩‍👧 naïve 🐈‍⬛ café",
] * 4


def wrapped(backend: Tokenizer, **options: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **options)


def with_added_tokens(tokenizer: Any) -> Any:
    """Special and plain added tokens, some with what a decoder might trip over."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|sys|>"]})
    tokenizer.add_tokens([AddedToken("<tool>"), AddedToken(" spaced "), AddedToken("▁mark"), AddedToken("猫咪"), "é"])
    return tokenizer


def sentencepiece(prepend: bool, byte_fallback: bool = True) -> PreTrainedTokenizerFast:
    """What llama's tokenizer is: BPE over ▁ for spaces, single bytes for what is not in the vocabulary."""
    backend = Tokenizer(models.BPE(byte_fallback=byte_fallback, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prepend else steps)
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False,
        limit_alphabet=40,
    )  # fmt: skip
    backend.train_from_iterator(CORPUS, trainer)
    # the trainer makes the bytes special tokens; in a real vocabulary they are ordinary entries
    data = json.loads(backend.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in special]
    return wrapped(Tokenizer.from_str(json.dumps(data)), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return wrapped(backend, unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"], show_progress=False)
    )
    return wrapped(backend, unk_token="[UNK]")


def words(decoder: Any) -> PreTrainedTokenizerFast:
    names = ["<unk>", "the", "cat", "sat", ".", "猫", "sa", "t</w>", "cat</w>", "a", "a", " "]
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(dict.fromkeys(names))}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if decoder is not None:
        backend.decoder = decoder
    return wrapped(backend, unk_token="<unk>")


def characters() -> PreTrainedTokenizerFast:
    letters = sorted(set("".join(CORPUS)))
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.decoder = decoders.Fuse()
    return wrapped(backend)


class InPython(PythonBackend):
    """A tokenizer in Python: pieces of words are joined by '@@ ', as CTRL's are."""

    names = ("<unk>", "the", "ca@@", "t", "mat", "猫@@", "🐈", "\ufffd")

    def __init__(self, **options: Any) -> None:
        super().__init__(unk_token="<unk>", **options)

    @property
    def vocab_size(self) -> int:
        return len(self.names)

    def get_vocab(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.names)}

    def _tokenize(self, text: str) -> list[str]:
        return text.split()

    def _convert_token_to_id(self, token: str) -> int:
        return self.names.index(token) if token in self.names else 0

    def _convert_id_to_token(self, index: int) -> str:
        return self.names[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return " ".join(tokens).replace("@@ ", "").strip()


class BytesInPython(InPython):
    """Every token is a byte, and nothing in its structure says so, as in ByT5."""

    names = ("<unk>", *map(chr, range(256)))

    def _tokenize(self, text: str) -> list[str]:
        return [chr(byte) for byte in text.encode()]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return bytes(ord(token) for token in tokens if len(token) == 1 and ord(token) < 256).decode(errors="replace")


MADE: dict[str, Callable[[], Any]] = {
    "byte level": lambda: byte_level(CORPUS, 420),
    "byte level with added tokens": lambda: with_added_tokens(byte_level(CORPUS, 420)),
    "sentencepiece": lambda: sentencepiece(prepend=True),
    "sentencepiece with added tokens": lambda: with_added_tokens(sentencepiece(prepend=True)),
    "sentencepiece without a leading space": lambda: sentencepiece(prepend=False),
    "unigram, metaspace": unigram,
    "unigram with added tokens": lambda: with_added_tokens(unigram()),
    "wordpiece": wordpiece,
    "wordpiece with added tokens": lambda: with_added_tokens(wordpiece()),
    "no decoder": lambda: words(None),
    "characters": characters,
}
BY_DIFFERENCE: dict[str, Callable[[], Any]] = {
    "end of word marked": lambda: words(decoders.BPEDecoder(suffix="</w>")),
    "a regular expression": lambda: words(decoders.Sequence([decoders.Replace(Regex("a+"), "b"), decoders.Fuse()])),
    "in Python": InPython,
    "bytes in Python": BytesInPython,
    "byt5": ByT5Tokenizer,
}
REAL = ("models/stories260K", "models/TinyStories-656K", "tokenizers/gpt-2")

_made: dict[str, tuple[Any, Pieces]] = {}


def at_hand(name: str, material: Callable[[], Path]) -> tuple[Any, Pieces]:
    if name not in _made:
        if name in REAL:
            tokenizer = AutoTokenizer.from_pretrained(material() / name)
        elif name == "demo":
            if not (DEMO / "tokenizer.json").is_file():
                pytest.skip("the demo model is not here")
            tokenizer = AutoTokenizer.from_pretrained(DEMO)
        else:
            tokenizer = {**MADE, **BY_DIFFERENCE}[name]()
        _made[name] = (tokenizer, Pieces(tokenizer))
    return _made[name]


@pytest.fixture(params=[*MADE, *BY_DIFFERENCE, *REAL, "demo"])
def tokenizer_and_pieces(request: pytest.FixtureRequest) -> tuple[Any, Pieces]:
    return at_hand(request.param, lambda: request.getfixturevalue("material"))


def text_of(tokenizer: Any, ids: list[int]) -> str:
    known = [i for i in ids if i < len(tokenizer)]
    return tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


CHARACTERS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="the cat sat.,'n \n\t猫坐在垫子上。👩‍🐈⬛éï▁Ġ#<>|", max_size=40),
    st.sampled_from(
        ["👩‍👩‍👧‍👦", " 猫", "  two", "<s>", "</s><s>", "<0xE4>", "▁", "##ing", "é ", "\ufffd", " do not", "didn't ."]
    ),
)
RELAXED = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def test_structure_explains_these(request: pytest.FixtureRequest) -> None:
    assert {name for name in MADE if not at_hand(name, lambda: Path())[1].exact} == set()
    assert {name for name in BY_DIFFERENCE if at_hand(name, lambda: Path())[1].exact} == set()


@RELAXED
@given(text=CHARACTERS, more=CHARACTERS)
def test_pieces_of_a_text_are_its_text(tokenizer_and_pieces: tuple[Any, Pieces], text: str, more: str) -> None:
    tokenizer, pieces = tokenizer_and_pieces
    prompt = tokenizer(text)["input_ids"]
    ids = tokenizer(more, add_special_tokens=False)["input_ids"]
    assert b"".join(pieces.spell(prompt)).decode(errors="replace") == text_of(tokenizer, prompt)
    before, after = text_of(tokenizer, prompt), text_of(tokenizer, prompt + ids)
    if after.startswith(before):
        assert b"".join(pieces.spell(ids, prompt_ids=prompt)).decode(errors="replace") == after[len(before) :]


@RELAXED
@given(data=st.data())
def test_any_ids_are_spelt(tokenizer_and_pieces: tuple[Any, Pieces], data: st.DataObject) -> None:
    tokenizer, pieces = tokenizer_and_pieces
    # some beyond the vocabulary, as the padded rows of an embedding are
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) + 3), max_size=12))
    spelt = pieces.spell(ids)
    assert len(spelt) == len(ids)
    if is_text(b"".join(spelt)):
        assert b"".join(spelt).decode() == text_of(tokenizer, ids)


@RELAXED
@given(data=st.data())
def test_one_after_another_is_all_at_once(tokenizer_and_pieces: tuple[Any, Pieces], data: st.DataObject) -> None:
    tokenizer, pieces = tokenizer_and_pieces
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=100))
    spelling = pieces.spelling(ids[:5])
    fed = [spelling.feed(token_id) for token_id in ids[5:]]
    at_once = pieces.spell(ids[5:], prompt_ids=ids[:5])
    assert b"".join(fed) + spelling.finish() == b"".join(at_once)


def test_character_that_spans_tokens_is_spread_over_them(material: Path) -> None:
    for name in ("byte level", "sentencepiece", *REAL[::2]):
        tokenizer, pieces = at_hand(name, lambda: material)
        ids = tokenizer("🦊", add_special_tokens=False)["input_ids"]
        spelt = pieces.spell(ids)
        assert b"".join(spelt).decode().strip() == "🦊"
        assert not all(is_text(piece) for piece in spelt), name


def test_leading_space_is_cut_once_and_only_at_the_start(material: Path) -> None:
    tokenizer, pieces = at_hand("models/stories260K", lambda: material)
    once = tokenizer.convert_tokens_to_ids("▁a")
    bos = tokenizer.bos_token_id
    assert pieces.spell([bos, once, once]) == [b"", b"a", b" a"]
    assert pieces.spell([once], prompt_ids=[bos]) == [b"a"]
    assert pieces.spell([bos, once], prompt_ids=[bos, once]) == [b"", b" a"]


def test_piece_keeps_the_spelling_of_the_vocabulary(material: Path) -> None:
    tokenizer, pieces = at_hand("tokenizers/gpt-2", lambda: material)
    mat = pieces.piece(tokenizer.convert_tokens_to_ids("Ġmat"))
    assert (mat.token, mat.bytes, mat.special) == ("Ġmat", b" mat", False)
    end = pieces.piece(50256)
    assert (end.token, end.bytes, end.special) == ("<|endoftext|>", b"", True)
    beyond = pieces.piece(50300)
    assert (beyond.token, beyond.bytes, beyond.special) == ("<id 50300>", b"", False)
    assert pieces.piece(-1).token == "<id -1>"
    llama, llama_pieces = at_hand("models/stories260K", lambda: material)
    byte = llama_pieces.piece(llama.convert_tokens_to_ids("<0xE4>"))
    assert (byte.token, byte.bytes) == ("<0xE4>", b"\xe4")


def test_without_a_tokenizer_tokens_have_no_name() -> None:
    pieces = Pieces(None)
    assert pieces.spell([5, 6]) == [b"", b""]
    assert pieces.piece(5).token == "<id 5>"
    assert spelling_of(None, [1, 2]) is None


def test_spelling_names_its_pieces() -> None:
    tokenizer, _ = at_hand("byte level", lambda: Path())
    (cat,) = tokenizer(" cat")["input_ids"]
    spelling = spelling_of(tokenizer, [cat])
    assert spelling is not None
    assert spelling.feed(cat) == b" cat"
    assert spelling.piece(cat) == ("Ġcat", b" cat", False)


def test_long_text_by_difference_needs_no_look_at_all_of_it() -> None:
    tokenizer = InPython()
    pieces = Pieces(tokenizer)
    ids = [1, 2, 3, 4, 5, 6] * 60
    assert b"".join(pieces.spell(ids)).decode() == text_of(tokenizer, ids)
    assert max(len(pieces.spelling(ids[:n])._window) for n in (70, 200, 360)) <= 64


def test_pieces_are_made_once_and_die_with_their_tokenizer() -> None:
    tokenizer = byte_level(CORPUS, 300)
    first = pieces_of(tokenizer)
    assert pieces_of(tokenizer) is first
    tokenizer.add_tokens(["<new>"])
    grown = pieces_of(tokenizer)
    assert grown is not first and grown.piece(len(tokenizer) - 1).token == "<new>"
    watch = weakref.ref(tokenizer)
    spelling = spelling_of(tokenizer)
    del tokenizer, grown, first
    gc.collect()
    assert watch() is not None and spelling is not None and spelling.feed(70), "a spelling in use keeps it"
    del spelling
    gc.collect()
    assert watch() is None


def test_structure_that_disagrees_with_the_tokenizer_is_not_believed() -> None:
    class Shouting(PreTrainedTokenizerFast):
        def _decode(self, *args: Any, **kwargs: Any) -> str:
            return super()._decode(*args, **kwargs).upper()

    tokenizer = Shouting(tokenizer_object=byte_level(CORPUS, 300).backend_tokenizer)
    pieces = Pieces(tokenizer)
    assert not pieces.exact
    ids = tokenizer("the cat 猫")["input_ids"]
    assert b"".join(pieces.spell(ids)).decode() == "THE CAT 猫"


def test_alphabet_is_that_of_byte_level_vocabularies() -> None:
    alphabet = byte_level_alphabet()
    assert sorted(alphabet) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(alphabet.values()) == list(range(256))
    assert alphabet["Ġ"] == 32


@pytest.mark.parametrize(
    "decoder",
    [
        {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True},
        {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteLevel"}]},
        {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}]},
        {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "ab"}, "content": ""}]},
        {"type": "something new"},
    ],
)  # fmt: skip
def test_decoders_that_join_tokens_are_left_to_differences(decoder: dict[str, Any]) -> None:
    assert compile_decoder(decoder) is None
