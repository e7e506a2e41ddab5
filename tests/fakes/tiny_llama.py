"""A tiny Llama with random weights as engines of the Hugging Face kind load it: a folder of files.

Some 120,000 weights, written byte by byte as safetensors; the tokens are the 256 bytes and a few
marks, so any text can be tokenised. Answers make no sense and are the same for the same seed. Its
heads are 32 wide: vLLM's kernels for processors know no narrower ones.
"""

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

HIDDEN, LAYERS, HEADS, HEADS_KV, HEAD, FEED_FORWARD = 64, 2, 2, 1, 32, 128
CONTEXT_TOKENS = 2048
MARKS = ("<pad>", "<s>", "</s>", "<|turn|>", "<|end|>")
VOCABULARY = 264  # 256 bytes and the marks, rounded up
TEMPLATE = (
    "{% for message in messages %}<|turn|>{{ message['role'] }}: {{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant:{% endif %}"
)


def write_tiny_llama(folder: Path, *, seed: int = 0) -> Path:
    """Fills `folder`, made when it is not there, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", _config())
    _write(folder / "tokenizer.json", _tokenizer())
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "model_max_length": CONTEXT_TOKENS,
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
        },
    )
    (folder / "model.safetensors").write_bytes(_safetensors(random.Random(seed)))
    return folder


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _config() -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS_KV,
        "head_dim": HEAD,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def _tokenizer() -> dict[str, object]:
    """Byte-level BPE without merges: each byte is a token."""
    marks = [
        {
            "id": number,
            "content": mark,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for number, mark in enumerate(MARKS)
    ]
    letters = {letter: len(MARKS) + rank for rank, letter in enumerate(_letters())}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": marks,
        "normalizer": None,
        "pre_tokenizer": {**byte_level, "use_regex": False},
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {mark: number for number, mark in enumerate(MARKS)} | letters,
            "merges": [],
        },
    }


def _letters() -> Iterator[str]:
    """How byte-level tokenizers write the 256 bytes: printable ones as they are, others shifted."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    shifted = 256
    for byte in range(256):
        if byte in printable:
            yield chr(byte)
        else:
            yield chr(shifted)
            shifted += 1


def _shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)
    yield "model.norm.weight", (HIDDEN,)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", (HIDDEN,)
        yield at + "post_attention_layernorm.weight", (HIDDEN,)
        yield at + "self_attn.q_proj.weight", (HEADS * HEAD, HIDDEN)
        yield at + "self_attn.k_proj.weight", (HEADS_KV * HEAD, HIDDEN)
        yield at + "self_attn.v_proj.weight", (HEADS_KV * HEAD, HIDDEN)
        yield at + "self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD)
        yield at + "mlp.gate_proj.weight", (FEED_FORWARD, HIDDEN)
        yield at + "mlp.up_proj.weight", (FEED_FORWARD, HIDDEN)
        yield at + "mlp.down_proj.weight", (HIDDEN, FEED_FORWARD)


def _safetensors(dice: random.Random) -> bytes:
    """The format: the header's length, a JSON header with places of tensors, the tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    content = bytearray()
    for name, shape in _shapes():
        begin = len(content)
        count = 1
        for side in shape:
            count *= side
        norm = len(shape) == 1
        for _ in range(count):
            content += _bfloat16(1.0 if norm else dice.gauss(0.0, 0.2))
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [begin, len(content)],
        }
    said = json.dumps(header).encode()
    said += b" " * (-len(said) % 8)
    return struct.pack("<Q", len(said)) + said + bytes(content)


def _bfloat16(value: float) -> bytes:
    """The upper half of a 32-bit float."""
    return struct.pack("<f", value)[2:]
