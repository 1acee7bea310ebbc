"""The demo model's tokenizer: BLOOM's pre-tokenisation, trained so that each word of the world is one token."""

from __future__ import annotations

from random import Random

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from tokentape.world import KINDS, lexicon, sample

BLOOM_PATTERN = r" ?[^(\s|[.,!?…。，、।۔،])]+"
SPECIALS = ["<unk>", "<s>", "</s>", "<pad>"]
GRAMMAR_WORDS_ZH = ("在", "上", "里", "的", "很", "。")
DOCUMENTS_PER_KIND = 4000


def train_tokenizer(seed: int, n_positions: int) -> PreTrainedTokenizerFast:
    """Train byte-level BPE on the list of the world's words, each seen equally often.

    Training on words rather than on documents keeps Chinese words apart, which no space separates, and gives
    rare words a token as well. All 256 bytes are in the alphabet, so any text survives a round trip.
    """
    tokenizer = Tokenizer(BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [Split(Regex(BLOOM_PATTERN), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=8192,
        special_tokens=SPECIALS,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(world_words(tokenizer, seed), trainer)
    return wrapped(tokenizer, n_positions)


def wrapped(tokenizer: Tokenizer, n_positions: int) -> PreTrainedTokenizerFast:
    """A tokenizer with the four special tokens, as transformers takes it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=n_positions,
        clean_up_tokenization_spaces=False,
    )


def world_words(tokenizer: Tokenizer, seed: int) -> list[str]:
    """Every word of sampled documents as it is written, with its space if it has one, and all Chinese words."""
    rng, words = Random(seed), set[str]()
    for kind in KINDS:
        for _ in range(DOCUMENTS_PER_KIND):
            text = sample(kind, rng).text
            for _, (start, end) in tokenizer.pre_tokenizer.pre_tokenize_str(text):
                if text[start:end].isascii():
                    words.add(text[start:end])
    tables = [table for name, table in vars(lexicon).items() if name.endswith("_ZH")]
    words.update(word for table in tables for word in table.values())
    words.update(GRAMMAR_WORDS_ZH)
    return sorted(words)
