"""tokens.json: texts and their ids by transformers with the real Qwen2.5 vocabulary.

The vocabulary follows from `qwen2_5_merges.txt.gz` (given; the merges of Qwen2.5's tokenizer.json,
Apache-2.0): the 256 bytes, then the result of each merge, then the added tokens.
"""

import gzip
import hashlib
import json
import tempfile
from pathlib import Path

from transformers import AddedToken, Qwen2Tokenizer, Qwen2TokenizerFast
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode

from .common import GOLDEN, PROMPTS, chat, load_json

FIRST_ADDED = 151643
KEPT_WHOLE = 1000
ENDS = 40


def tokenizers():
    """transformers' slow and fast tokenizer."""
    merges = gzip.decompress((GOLDEN / "qwen2_5_merges.txt.gz").read_bytes()).decode()
    tokens = list(bytes_to_unicode().values())
    tokens += [line.replace(" ", "", 1) for line in merges.splitlines()]
    assert len(tokens) == len(set(tokens)) == FIRST_ADDED
    # The small checkpoint's added tokens are the real ones under other ids.
    added = load_json("checkpoints/tiny/hf/added_tokens.json")
    plain = ("<tool_call>", "</tool_call>", "<|fim", "<|repo", "<|file")
    names = [
        AddedToken(name, normalized=False, special=not name.startswith(plain))
        for name in sorted(added, key=added.get)
    ]
    with tempfile.TemporaryDirectory() as folder:
        vocab, merge_file = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocab.write_text(json.dumps({t: i for i, t in enumerate(tokens)}), encoding="utf-8")
        merge_file.write_text("#version: 0.2\n" + merges, encoding="utf-8")
        made = []
        for kind in (Qwen2Tokenizer, Qwen2TokenizerFast):
            tokenizer = kind(str(vocab), str(merge_file))
            tokenizer.add_tokens(names)
            assert tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>") == 151667
            made.append(tokenizer)
    return made


def make():
    slow, fast = tokenizers()
    prompts = iter(PROMPTS)
    cases = []
    for case in load_json("tokens.json"):
        text = case["text"]
        if text is None:
            text = chat(case["frames"], 256, next(prompts))
        ids = fast.encode(text, add_special_tokens=False)
        slow_ids = slow.encode(text, add_special_tokens=False)
        same = slow_ids == ids
        cases.append(
            {
                "text": case["text"],
                "frames": case["frames"],
                "n": len(ids),
                "slow_equals_fast": same,
                "ids": ids if len(ids) < KEPT_WHOLE else None,
                "head": ids[:ENDS],
                "tail": ids[-ENDS:],
                "sha": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
                "slow_ids": None if same else slow_ids,
            }
        )
    return {"tokens.json": cases}
