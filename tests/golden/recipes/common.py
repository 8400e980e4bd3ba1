"""Reading and writing golden files, and the prompt."""

import json
import struct
from pathlib import Path

GOLDEN = Path(__file__).resolve().parent.parent

SYSTEM = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位"
    "联合开发的多模态大语言模型。"
)
PROMPTS = [
    "Identify any abnormal events or safety hazards in this video.",
    "Analyze the video for anomalies. Describe any violent activities, accidents, or deviations "
    "from normal patterns in detail.",
    "Identify any abnormal events in this video.",
]


def chat(frames, tokens_per_frame, prompt):
    """The whole prompt as one text."""
    pictures = "".join(
        f"Frame{n}: <img>{'<IMG_CONTEXT>' * tokens_per_frame}</img>\n" for n in range(1, frames + 1)
    )
    return (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{pictures}{prompt}"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def load_json(name):
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def metadata(path):
    """The text metadata of a safetensors file."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(size)).get("__metadata__") or {}
