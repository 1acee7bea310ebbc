"""Loading: what works, and that every way to fail says what, why and how to mend it."""

from __future__ import annotations

import builtins
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import POSITIONS, VOCABULARY, llama_config
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from tokentape.errors import MissingExtra, ModelError, OutOfMemory, PromptError, TokentapeError, Unreachable, UsageError
from tokentape.models import loading, runtime
from tokentape.models.architecture import check_causal, ignores_padding, positions_of
from tokentape.models.causal import load

Spoiler = Callable[[Path], Any]


def refused(*args: Any, **kwargs: Any) -> TokentapeError:
    with pytest.raises(TokentapeError) as caught:
        load(*args, **kwargs)
    return caught.value


def assert_says(error: TokentapeError, kind: type[TokentapeError], code: int, *facts: str) -> None:
    assert type(error) is kind, error
    assert error.exit_code == code
    assert error.what and error.why and error.fix, error
    missing = [fact for fact in facts if fact not in str(error)]
    assert not missing, f"{missing} not in: {error}"


# what works


def test_whole_folder(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loaded = load(whole)
    assert type(loaded.model) is LlamaForCausalLM
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert (loaded.positions, loaded.vocab_size, loaded.bos_id) == (POSITIONS, VOCABULARY, 0)
    assert (loaded.revision, loaded.path, loaded.random_weights) == (None, str(whole), None)
    assert (loaded.device.type, loaded.dtype) == (loaded.model.device.type, torch.float32)
    assert [Path(p).name for p in loaded.weight_files] == ["model.safetensors"]
    assert capfd.readouterr() == ("", ""), "loading says nothing when nothing is wrong"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("bf16", torch.bfloat16), ("fp32", torch.float32), ("float16", torch.float16), (torch.bfloat16, torch.bfloat16)],
)
def test_dtype_by_any_of_its_names(whole: Path, name: Any, dtype: torch.dtype) -> None:
    assert load(whole, dtype=name, device="cpu").dtype == dtype


def test_pickled_weights_and_shards_are_read(spoilt: Path) -> None:
    expected = load(spoilt).model.state_dict()
    model = LlamaForCausalLM.from_pretrained(spoilt)
    (spoilt / "model.safetensors").unlink()
    torch.save(model.state_dict(), spoilt / "pytorch_model.bin")
    pickled = load(spoilt).model.state_dict()
    (spoilt / "pytorch_model.bin").unlink()
    model.save_pretrained(spoilt, max_shard_size="10KB")
    assert len(list(spoilt.glob("model-*.safetensors"))) > 1
    sharded = load(spoilt)
    assert len(sharded.weight_files) > 1
    for state in (pickled, sharded.model.state_dict()):
        assert all(torch.equal(state[key], value) for key, value in expected.items())


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    LlamaForCausalLM(llama_config(tie_word_embeddings=True)).save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    model = load(tmp_path).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_random_weights_from_a_bare_config(tmp_path: Path) -> None:
    llama_config().save_pretrained(tmp_path)
    renamed = tmp_path / "apart" / "llama.json"
    renamed.parent.mkdir()
    shutil.copy(tmp_path / "config.json", renamed)
    before = torch.random.get_rng_state()
    first, again, other = (load(tmp_path, random_weights=seed) for seed in (1, 1, 2))
    by_file = load(renamed, random_weights=1, dtype="bf16")
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's random numbers are left alone"
    key = "model.layers.0.self_attn.q_proj.weight"
    same, twin, different = (m.model.state_dict()[key] for m in (first, again, other))
    assert torch.equal(same, twin) and not torch.equal(same, different)
    assert (first.random_weights, first.tokenizer, first.weight_files) == (1, None, ())
    assert by_file.dtype == torch.bfloat16
    assert torch.isfinite(first.model(torch.tensor([[1, 2, 3]])).logits).all()


@pytest.mark.material
def test_greedy_text_of_a_trained_model(material: Path) -> None:
    folder = material / "models" / "stories260K"
    loaded = load(folder)
    ids = loaded.encode("", bos=True)
    out = loaded.model.generate(torch.tensor([ids]), max_new_tokens=200, do_sample=False)[0].tolist()
    text = b"".join(loaded.pieces.spell(out[1:], prompt_ids=out[:1])).decode()
    expected = (folder / "expected_greedy_200.txt").read_text(encoding="utf-8")
    assert text.startswith(expected[:200]) and expected.rstrip().startswith(text.rstrip()[:200])


# the folder is wrong


def keep(*names: str) -> Spoiler:
    def spoil(folder: Path) -> None:
        for path in folder.iterdir():
            if path.name not in names:
                path.unlink()

    return spoil


def write(name: str, data: str | bytes) -> Spoiler:
    return lambda folder: (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def cut(name: str, size: int) -> Spoiler:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Spoiler:
    def spoil(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def both(*spoilers: Spoiler) -> Spoiler:
    return lambda folder: [spoil(folder) for spoil in spoilers]


QUERY = "model.layers.1.self_attn.q_proj.weight"
CONFIG_ONLY = keep("config.json")

FOLDERS: dict[str, tuple[Spoiler, dict[str, Any], type[TokentapeError], int, list[str]]] = {
    "nothing inside": (keep(), {}, ModelError, 1, ["no config.json", "nothing"]),
    "no config": (keep("model.safetensors", "tokenizer.json"), {}, ModelError, 1, ["no config.json", "weights"]),
    "only other files": (both(keep(), write("notes.txt", "x")), {}, ModelError, 1, ["no config.json", "notes.txt"]),
    "an adapter": (both(keep(), write("adapter_config.json", "{}")), {}, ModelError, 1, ["adapter", "merge"]),
    "llama.cpp's": (both(keep(), write("a.gguf", "GGUF")), {}, ModelError, 1, ["llama.cpp", "endpoint"]),
    "broken config": (write("config.json", "{broken"), {}, ModelError, 1, ["config.json", "line 1"]),
    "config is a list": (write("config.json", "[]"), {}, ModelError, 1, ["config.json", "no JSON object"]),
    "config names nothing": (write("config.json", '{"a": 1}'), {}, ModelError, 1, ["does not know", "model_type"]),
    "unknown architecture": (
        write("config.json", '{"model_type": "zzz"}'), {}, ModelError, 1, ["'zzz'", "pip install --upgrade"]
    ),
    "remote code": (
        write("config.json", '{"model_type": "zzz", "auto_map": {"AutoModelForCausalLM": "modeling_z.Z"}}'), {},
        ModelError, 1, ["code that comes with it", "--trust-remote-code"],
    ),
    "no weights": (CONFIG_ONLY, {}, UsageError, 2, ["--random-weights SEED", "model.safetensors"]),
    "weights of its own": (keep("config.json", "model.safetensors"), {"random_weights": 1}, UsageError, 2, ["--random"]),
    "no seed": (CONFIG_ONLY, {"random_weights": -1}, UsageError, 2, ["-1", "seed"]),
    "revision of a folder": (keep("config.json"), {"revision": "main"}, UsageError, 2, ["'main'", "revision"]),
    "half of the weights": (cut("model.safetensors", 9000), {}, ModelError, 1, ["damaged", "incomplete"]),
    "empty weights": (cut("model.safetensors", 0), {}, ModelError, 1, ["damaged", "header"]),
    "weights of nonsense": (write("model.safetensors", "x" * 999), {}, ModelError, 1, ["damaged", "header"]),
    "half a pickle": (
        both(keep("config.json"), write("pytorch_model.bin", b"PK\x03\x04" + b"x" * 200)), {}, ModelError, 1, ["damaged"]
    ),
    "missing shard": (
        both(keep("config.json"), write("model.safetensors.index.json", json.dumps(
            {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}))), {},
        ModelError, 1, ["model-00001-of-00002.safetensors"],
    ),
    "missing key": (weights(lambda s: s.pop(QUERY)), {}, ModelError, 1, [QUERY, "1 missing", "at random"]),
    "another shape": (
        weights(lambda s: s.update({QUERY: torch.zeros(15, 16)})), {}, ModelError, 1, [QUERY, "[15, 16]", "[16, 16]"]
    ),
    "broken tokenizer": (cut("tokenizer.json", 500), {}, ModelError, 1, ["tokenizer", "tokenizer.json", "broken"]),
    "empty tokenizer": (write("tokenizer.json", "{}"), {}, ModelError, 1, ["tokenizer", "broken"]),
    "unknown dtype": (keep("config.json"), {"dtype": "int3"}, UsageError, 2, ["'int3'", "bfloat16", "--dtype auto"]),
    "unknown device": (keep("config.json"), {"device": "abacus"}, UsageError, 2, ["'abacus'", "cpu", "--device"]),
    "unknown attention": (
        keep("config.json", "model.safetensors"), {"attn_implementation": "zzz"}, UsageError, 2, ["'zzz'", "eager"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_folder_is_refused(case: str, spoilt: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spoil, options, kind, code, facts = FOLDERS[case]
    spoil(spoilt)
    assert_says(refused(spoilt, **options), kind, code, *facts)
    assert capfd.readouterr().out == ""


NOT_CAUSAL: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "masked": ("bert", {"architectures": ["BertForMaskedLM"]}, ["BertForMaskedLM", "both sides"]),
    "encoder-decoder": ("t5", {"architectures": ["T5ForConditionalGeneration"]}, ["T5For", "encoder-decoder"]),
    "translator": ("marian", {"architectures": ["MarianMTModel"]}, ["MarianMTModel", "encoder-decoder"]),
    "of images": ("vit", {"architectures": ["ViTForImageClassification"]}, ["ViTFor", "classifier of images"]),
    "of images and text": ("llava", {}, ["llava", "no causal head"]),
    "permuted": ("xlnet", {}, ["xlnet", "permuted"]),
    "classifier": ("llama", {"architectures": ["LlamaForSequenceClassification"]}, ["classifier of sequences"]),
}


@pytest.mark.parametrize("case", NOT_CAUSAL)
def test_other_models_are_refused_by_name(case: str, tmp_path: Path) -> None:
    model_type, entries, facts = NOT_CAUSAL[case]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **entries}))
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    assert_says(refused(tmp_path), ModelError, 1, "not a causal language model", *facts)


@pytest.mark.parametrize(
    ("model_type", "entries"),
    [("bert", {"is_decoder": True}), ("gpt_neox", {}), ("gpt2", {"architectures": ["GPT2LMHeadModel"]})],
)
def test_decoders_are_let_in(model_type: str, entries: dict[str, Any]) -> None:
    check_causal(AutoConfig.for_model(model_type, **entries), "it")


# the name is wrong


@pytest.mark.parametrize(
    ("name", "options", "facts"),
    [
        ("./absent", {}, ["./absent", "demo"]),
        ("absent.json", {}, ["absent.json"]),
        ("owner/name/too/deep", {}, ["owner/name/too/deep"]),
        ("two words", {}, ["two words", "hub id"]),
        ("owner/name@a", {"revision": "b"}, ["'a'", "'b'", "--revision"]),
    ],
)
def test_name_is_refused(name: str, options: dict[str, Any], facts: list[str]) -> None:
    assert_says(refused(name, **options), UsageError, 2, *facts)


def test_file_that_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert_says(refused(tmp_path / "model.safetensors"), UsageError, 2, "weights alone", "folder")


def test_demo_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "DEMO", tmp_path)
    assert_says(refused("demo"), ModelError, 1, "demo", "reinstall")


# the machine is too small, or lacks something


def test_cuda_is_not_here(whole: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert_says(refused(whole, device="cuda"), MissingExtra, 4, "'cuda'", "cpu", "--device cpu")


def test_second_gpu_is_not_here(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "devices_here", lambda: ["cuda:0", "cpu"])
    assert runtime.parse_device("cuda").type == "cuda"
    assert runtime.parse_device("auto").index == 0
    assert_says(refused(whole, device="cuda:1"), MissingExtra, 4, "cuda:1", "cuda:0")


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 99 bytes"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes"),
        MemoryError(),
    ],
)
def test_weights_do_not_fit(whole: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise failure

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    size = (whole / "model.safetensors").stat().st_size
    assert_says(refused(whole), OutOfMemory, 1, "does not fit", f"{size / 1e9:,.2f} GB", "are free", "--dtype bfloat16")


def test_drawn_weights_that_can_never_fit_are_not_drawn(tmp_path: Path) -> None:
    # an attempt would end in a process that the system kills without a word
    llama_config(vocab_size=2**22, hidden_size=2**18).save_pretrained(tmp_path)
    assert_says(refused(tmp_path, random_weights=0, dtype="fp32"), OutOfMemory, 1, "10,445.52 GB", "does not fit")


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_package_is_not_installed(package: str, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return builtins.__import__(name)

    monkeypatch.setattr(runtime.importlib, "import_module", absent)
    assert_says(refused(whole), MissingExtra, 4, package, "pip install 'tokentape[local]'")


# prompts


def test_encode_is_what_the_tokenizer_gives(whole: Path) -> None:
    loaded = load(whole)
    ids = loaded.tokenizer("the cat")["input_ids"]
    assert loaded.encode("the cat") == ids
    assert loaded.encode("the cat", bos=True) == [0, *ids] == loaded.encode([0, *ids], bos=True)
    assert loaded.encode("", bos=True) == [0]
    assert loaded.encode(torch.tensor([3, 4])) == [3, 4]


def test_bos_that_the_tokenizer_adds_can_be_left_away(material: Path) -> None:
    loaded = load(material / "models" / "stories260K")
    ids = loaded.encode("Once")
    assert ids[0] == loaded.bos_id
    assert loaded.encode("Once", bos=True) == ids
    assert loaded.encode("Once", bos=False) == ids[1:]
    # one that the text itself spells stays
    assert loaded.encode("<s>Once", bos=False)[0] == loaded.bos_id


@pytest.mark.parametrize(
    ("prompt", "facts"),
    [
        ("", ["empty", "--bos"]),
        ([], ["empty"]),
        ([5, VOCABULARY, 1], [str(VOCABULARY), "position 1", f"0 to {VOCABULARY - 1}"]),
        ([-1], ["-1", "position 0"]),
        ([1.5], ["neither text nor token ids"]),
        (["a", "b"], ["neither text nor token ids"]),
        ("\udcff", ["no Unicode text"]),
    ],
)
def test_prompt_is_refused(whole: Path, prompt: Any, facts: list[str]) -> None:
    with pytest.raises(PromptError) as caught:
        load(whole).encode(prompt)
    assert_says(caught.value, PromptError, 2, *facts)


def test_without_a_tokenizer_ids_are_the_prompt(spoilt: Path) -> None:
    keep("config.json", "model.safetensors")(spoilt)
    loaded = load(spoilt)
    assert loaded.tokenizer is None and loaded.encode([1, 2]) == [1, 2]
    with pytest.raises(ModelError) as caught:
        loaded.encode("text")
    assert_says(caught.value, ModelError, 1, "no tokenizer", "token ids")


def test_tokenizer_options_without_vocabulary_are_no_tokenizer(spoilt: Path) -> None:
    keep("config.json", "model.safetensors", "tokenizer_config.json")(spoilt)
    assert load(spoilt).tokenizer is None


@pytest.mark.parametrize(
    ("n_prompt", "n_new", "facts"),
    [
        (POSITIONS + 3, 1, ["shorten the prompt by 3", f"reads {POSITIONS}"]),
        (60, 5, ["--max-new-tokens 4", "more positions"]),
        (POSITIONS, 1, ["no new token"]),
    ],
)
def test_length_is_refused(whole: Path, n_prompt: int, n_new: int, facts: list[str]) -> None:
    loaded = load(whole)
    loaded.check_length(POSITIONS - 4, 4)
    with pytest.raises(PromptError) as caught:
        loaded.check_length(n_prompt, n_new)
    assert_says(caught.value, PromptError, 2, *facts)


@pytest.mark.parametrize(
    ("model_type", "entries", "positions"),
    [
        ("gpt2", {"n_positions": 77}, 77),
        ("opt", {"max_position_embeddings": 99}, 99),
        ("llama", {"max_position_embeddings": 55}, 55),
        ("mistral", {"max_position_embeddings": 500, "sliding_window": 8}, 500),
        ("mpt", {"max_seq_len": 33}, 33),
        ("falcon", {"alibi": True}, None),
        ("falcon", {"alibi": False, "max_position_embeddings": 44}, 44),
        ("bloom", {"seq_length": 2048}, None),
        ("rwkv", {"context_length": 32}, None),
        ("mamba", {}, None),
        ("mamba2", {}, None),
        ("gemma3", {}, 131072),
        ("qwen2", {"max_position_embeddings": 100, "rope_parameters": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100, "rope_theta": 1e4}}, 400),
    ],
)  # fmt: skip
def test_positions(model_type: str, entries: dict[str, Any], positions: int | None) -> None:
    assert positions_of(AutoConfig.for_model(model_type, **entries)) == positions


def test_padding_is_read_where_a_recurrence_knows_no_mask() -> None:
    assert ignores_padding(AutoConfig.for_model("rwkv"))
    assert not ignores_padding(AutoConfig.for_model("mamba"))


# the hub is out of reach (what it answers when it is there is in test_hub.py)


def test_offline_and_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    error = refused("owner/name@v1")
    assert_says(error, Unreachable, 5, "owner/name", "'v1'", str(tmp_path), "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME")
