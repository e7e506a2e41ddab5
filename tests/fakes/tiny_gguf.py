"""Tiny GGUF models with random weights: real files that a real llama.cpp loads in a blink.

The vocabulary is byte fallback, printable ASCII and a few whole words, so that any text can be
tokenised and what comes out is readable. Answers make no sense and are the same for the same seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

CONTEXT_TOKENS = 2048
HIDDEN = 64
LAYERS = 2
HEADS = 2
HEADS_KV = 1
FEED_FORWARD = 128

CONTROL = ("<s>", "</s>", "<|turn|>", "<|end|>")
WORDS = (
    "river stone lamp window garden winter summer bread paper bridge morning evening quiet green "
    "yellow north south walks sings opens closes under over between and or not where when how"
)
# A space before a word is part of the word's token in this kind of vocabulary.
SPACE = "\u2581"
TEMPLATE = (
    "{%- for message in messages -%}"
    "<|turn|>{{ message['role'] }}: {{ message['content'] }}<|end|>"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|turn|>assistant:{%- endif -%}"
)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    tokens: list[str]
    scores: list[float]
    types: list[TokenType]
    rare: int  # the first so many tokens shall hardly ever be generated


def vocabulary() -> Vocabulary:
    special = ["<unk>", *CONTROL]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    text = [
        SPACE,
        *(chr(code) for code in range(33, 127)),
        *(SPACE + word for word in WORDS.split()),
    ]
    return Vocabulary(
        tokens=[*special, *fallback, *text],
        # Lower scores merge later: whole words win over single characters by being longer.
        scores=[0.0] * (len(special) + 256) + [-float(rank) for rank in range(len(text))],
        types=[
            TokenType.UNKNOWN,
            *[TokenType.CONTROL] * len(CONTROL),
            *[TokenType.BYTE] * 256,
            *[TokenType.NORMAL] * len(text),
        ],
        rare=len(special) + 256,
    )


def write_tiny_gguf(path: Path, *, embedding: bool = False, seed: int = 7) -> Path:
    """Write a model of about half a megabyte. `embedding`: with mean pooling, for vectors."""
    words = vocabulary()
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny-random")
    writer.add_file_type(0)
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS_KV)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(words.tokens))
    if embedding:
        writer.add_pooling_type(PoolingType.MEAN)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words.tokens)
    writer.add_token_scores(words.scores)
    writer.add_token_types(words.types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    for name, values in _tensors(words, np.random.default_rng(seed)):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(
    words: Vocabulary, random: np.random.Generator
) -> Iterator[tuple[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:
    size = len(words.tokens)

    def matrix(rows: int, columns: int, scale: float) -> np.ndarray:  # type: ignore[type-arg]  # float32
        return (random.standard_normal((rows, columns)) * scale).astype(np.float32)

    ones = np.ones(HIDDEN, np.float32)
    output = matrix(size, HIDDEN, 1.0)
    # Flat logits for control and byte tokens: the end of a turn is never drawn by accident.
    output[: words.rare] *= 0.02
    yield "token_embd.weight", matrix(size, HIDDEN, 1.0)
    yield "output_norm.weight", ones
    yield "output.weight", output
    key_value = HIDDEN // HEADS * HEADS_KV
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", ones
        yield f"{block}.attn_q.weight", matrix(HIDDEN, HIDDEN, HIDDEN**-0.5)
        yield f"{block}.attn_k.weight", matrix(key_value, HIDDEN, HIDDEN**-0.5)
        yield f"{block}.attn_v.weight", matrix(key_value, HIDDEN, HIDDEN**-0.5)
        yield f"{block}.attn_output.weight", matrix(HIDDEN, HIDDEN, HIDDEN**-0.5)
        yield f"{block}.ffn_norm.weight", ones
        yield f"{block}.ffn_gate.weight", matrix(FEED_FORWARD, HIDDEN, HIDDEN**-0.5)
        yield f"{block}.ffn_up.weight", matrix(FEED_FORWARD, HIDDEN, HIDDEN**-0.5)
        yield f"{block}.ffn_down.weight", matrix(HIDDEN, FEED_FORWARD, FEED_FORWARD**-0.5)
