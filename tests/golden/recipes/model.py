"""Checkpoints of three small models in both layouts, and tensors of every stage.

`tiny` is given: its `hf` weights and its frames are read, its `orig` weights and all tensors are
made again. `tiny6b` (InternViT-6B style) and `tinywide` (LayerNorm, other ratios, tied embeddings,
two shards, and in `hf` the newer tensor names) are made from their seeds. Their weights are rounded
to bfloat16 and stored so; the tensors come from these rounded weights in float32.
"""

import copy
import json
import zlib

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file
from transformers import AutoTokenizer, InternVLConfig, InternVLForConditionalGeneration

from .common import GOLDEN, PROMPTS, chat, load_json

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

TOKENIZER_FILES = {
    "hf": ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"],
    "orig": [
        "vocab.json",
        "merges.txt",
        "added_tokens.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
    ],
}

SPECS = {
    "tiny6b": {
        "seed": 6,
        "shards": 1,
        "new_names": False,
        "frames": (3, 70, 100),
        "image": 84,
        "vision": {
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "intermediate_size": 96,
            "norm_type": "rms_norm",
            "use_qk_norm": True,
            "attention_bias": False,
        },
        "text": {
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 112,
            "tie_word_embeddings": False,
        },
    },
    "tinywide": {
        "seed": 7,
        "shards": 2,
        "new_names": True,
        "frames": (2, 130, 90),
        "image": 112,
        "vision": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 160,
            "norm_type": "layer_norm",
            "use_qk_norm": False,
            "attention_bias": True,
        },
        "text": {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "intermediate_size": 80,
            "tie_word_embeddings": True,
        },
    },
}


def hf_config(spec):
    """The config in the form that the hub's `-hf` checkpoints have."""
    base = load_json("checkpoints/tiny/hf/config.json")
    text = {
        **{k: base["text_config"][k] for k in ("vocab_size", "rope_theta", "rope_scaling")},
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 481,
        "eos_token_id": 483,
        "model_type": "qwen2",
        **spec["text"],
    }
    vision = {
        "image_size": [spec["image"]] * 2,
        "patch_size": [14, 14],
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "model_type": "internvl_vision",
        **spec["vision"],
    }
    config = InternVLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=base["image_token_id"],
        image_seq_length=(spec["image"] // 28) ** 2,
        downsample_ratio=0.5,
        tie_word_embeddings=spec["text"]["tie_word_embeddings"],
        architectures=["InternVLForConditionalGeneration"],
    )
    config.dtype = "bfloat16"
    return config


def orig_config(spec):
    """The config in the form that the original checkpoints have."""
    config = copy.deepcopy(load_json("checkpoints/tiny/orig/config.json"))
    text, vision = spec["text"], spec["vision"]
    tied = text["tie_word_embeddings"]
    config["force_image_size"] = spec["image"]
    config["hidden_size"] = text["hidden_size"]
    config["tie_word_embeddings"] = tied
    config["llm_config"].update(text)
    names = {"use_qk_norm": "qk_normalization", "attention_bias": "qkv_bias"}
    config["vision_config"].update({names.get(k, k): v for k, v in vision.items()})
    config["vision_config"]["image_size"] = spec["image"]
    return config


def random_weights(model, seed):
    """Weights with a spread that keeps every stage lively; each from its own stream."""
    for name, parameter in model.named_parameters():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        noise = rng.standard_normal(tuple(parameter.shape)).astype(np.float32)
        fan_in = int(np.prod(parameter.shape[1:])) if parameter.dim() > 1 else 1
        if "lambda_" in name:
            value = 0.35 + 0.1 * noise
        elif "norm" in name and name.endswith("weight"):
            value = 1.0 + 0.15 * noise
        elif name.endswith("bias"):
            attention = "self_attn.q" in name or "self_attn.k" in name
            value = (0.45 if attention else 0.1) * noise
        elif "embed_tokens" in name:
            value = 0.5 * noise
        elif "cls_token" in name or "position" in name:
            value = 0.3 * noise
        elif "q_proj" in name or "k_proj" in name:
            value = 1.6 / fan_in**0.5 * noise
        else:
            value = 1.0 / fan_in**0.5 * noise
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(value).bfloat16().float())


def pictures(spec):
    """Frames that differ: noise on a moving gradient."""
    count, height, width = spec["frames"]
    rng = np.random.default_rng(spec["seed"])
    y, x = np.mgrid[0:height, 0:width]
    out = []
    for n in range(count):
        waves = [128 + 90 * np.sin((x * (c + 1) + y * 2 + n * 40) / 17.0) for c in range(3)]
        noise = rng.normal(0, 25, (height, width, 3))
        out.append(np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))
    return np.stack(out)


def preprocess(frames, side):
    resized = [
        np.asarray(Image.fromarray(f).resize((side, side), Image.Resampling.BICUBIC)) for f in frames
    ]
    pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()
    return (pixels / 255 - MEAN) / STD


def stages(model, tokenizer, frames, question):
    """Every tensor of a forward pass, and the text metadata of its file."""
    config = model.config
    side = config.vision_config.image_size[0]
    per_frame = int((side // 14 * config.downsample_ratio) ** 2)
    prompt = chat(len(frames), per_frame, question)
    ids = torch.tensor(tokenizer.encode(prompt, add_special_tokens=False))
    pixels = preprocess(frames, side)

    heads, hidden = [], []
    hooks = []
    for layer in model.model.language_model.layers:
        hooks.append(
            layer.self_attn.o_proj.register_forward_pre_hook(
                lambda _, args: heads.append(args[0][0, -1].clone())
            )
        )
        hooks.append(
            layer.register_forward_hook(
                lambda _, args, out: hidden.append(
                    (out if torch.is_tensor(out) else out[0])[0, -1].clone()
                )
            )
        )
    with torch.no_grad():
        tower = model.model.vision_tower(pixel_values=pixels).last_hidden_state
        patches = tower[:, 1:]
        grid = side // 14
        shuffled = model.model.pixel_shuffle(
            patches.reshape(len(frames), grid, grid, -1), scale_factor=config.downsample_ratio
        )
        shuffled = shuffled.reshape(len(frames), per_frame, -1)
        embeds = model.model.multi_modal_projector(shuffled)
        logits = model(input_ids=ids[None], pixel_values=pixels).logits[0, -1]
    for hook in hooks:
        hook.remove()

    text = config.text_config
    count = text.num_attention_heads
    tensors = {
        "frames": torch.from_numpy(frames),
        "pixel_values": pixels,
        "vision_tower": tower,
        "vision_shuffled": shuffled,
        "vision_embeds": embeds,
        "input_ids": ids,
        "heads": torch.stack(heads).view(text.num_hidden_layers, count, -1),
        "last_hidden": torch.stack(hidden),
        "last_logits": logits,
    }
    return tensors, {"question": question, "prompt": prompt, "dtype": "f32", "attn": "eager"}


def to_original(state):
    """The same weights under the names of the original layout; q, k and v in one tensor."""
    out, qkv = {}, {}
    swaps = [
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.multi_modal_projector.layer_norm.", "mlp1.0."),
        ("model.multi_modal_projector.linear_1.", "mlp1.1."),
        ("model.multi_modal_projector.linear_2.", "mlp1.3."),
        ("model.vision_tower.embeddings.cls_token", "vision_model.embeddings.class_embedding"),
        (
            "model.vision_tower.embeddings.position_embeddings",
            "vision_model.embeddings.position_embedding",
        ),
        (
            "model.vision_tower.embeddings.patch_embeddings.projection",
            "vision_model.embeddings.patch_embedding",
        ),
        ("model.vision_tower.encoder.layer.", "vision_model.encoder.layers."),
        (".attention.projection_layer.", ".attn.proj."),
        (".attention.q_norm.", ".attn.q_norm."),
        (".attention.k_norm.", ".attn.k_norm."),
        (".layernorm_before.", ".norm1."),
        (".layernorm_after.", ".norm2."),
        (".lambda_", ".ls"),
    ]
    for name, tensor in state.items():
        for old, new in swaps:
            name = name.replace(old, new)
        part = next((p for p in "qkv" if f".attention.{p}_proj." in name), None)
        if part:
            qkv.setdefault(name.replace(f"attention.{part}_proj", "attn.qkv"), {})[part] = tensor
        else:
            out[name] = tensor
    for name, parts in qkv.items():
        out[name] = torch.cat([parts[p] for p in "qkv"])
    return out


def to_hf(state, new_names):
    """The names in a `-hf` file: newer ones as in the module tree, or the older ones."""
    if new_names:
        return state
    swaps = [
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        ("model.vision_tower.", "vision_tower."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ]
    out = {}
    for name, tensor in state.items():
        for old, new in swaps:
            if name.startswith(old):
                name = new + name[len(old) :]
                break
        out[name] = tensor
    return out


def weight_files(folder, tensors, shards):
    """The safetensors files of a checkpoint, and the index where there are several."""
    tensors = {name: tensors[name].contiguous() for name in sorted(tensors)}
    if shards == 1:
        return {f"{folder}/model.safetensors": (tensors, {"format": "pt"})}
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    files, weight_map, at = {}, {}, 0
    for name, tensor in tensors.items():
        shard = min(at * shards // size, shards - 1)
        at += tensor.numel() * tensor.element_size()
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        files.setdefault(f"{folder}/{file}", ({}, {"format": "pt"}))[0][name] = tensor
        weight_map[name] = file
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    files[f"{folder}/model.safetensors.index.json"] = index
    return files


def tied_state(model):
    state = dict(model.state_dict())
    if model.config.text_config.tie_word_embeddings:
        state.pop("lm_head.weight")
    return state


def make_tiny():
    folder = GOLDEN / "checkpoints/tiny/hf"
    model = InternVLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    frames = load_numpy(GOLDEN / "model_tiny.safetensors")["frames"]
    tensors, meta = stages(model, tokenizer, frames, PROMPTS[0])
    original = to_original(tied_state(model))
    return {
        "model_tiny.safetensors": (tensors, meta),
        **weight_files("checkpoints/tiny/orig", original, 1),
    }


def make_own(name):
    spec = SPECS[name]
    config = hf_config(spec)
    model = InternVLForConditionalGeneration._from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    random_weights(model, spec["seed"])
    model.tie_weights()
    state = {k: v.bfloat16() for k, v in tied_state(model).items()}

    tiny = GOLDEN / "checkpoints/tiny"
    tokenizer = AutoTokenizer.from_pretrained(tiny / "hf")
    tensors, meta = stages(model, tokenizer, pictures(spec), PROMPTS[0])
    saved = json.loads(config.to_json_string(use_diff=True))
    files = {
        f"model_{name}.safetensors": (tensors, meta),
        f"checkpoints/{name}/hf/config.json": saved,
        f"checkpoints/{name}/orig/config.json": orig_config(spec),
        **weight_files(
            f"checkpoints/{name}/hf", to_hf(state, spec["new_names"]), spec["shards"]
        ),
        **weight_files(f"checkpoints/{name}/orig", to_original(state), spec["shards"]),
    }
    for layout, names in TOKENIZER_FILES.items():
        for file in names:
            files[f"checkpoints/{name}/{layout}/{file}"] = (tiny / layout / file).read_bytes()
        size = load_json(f"checkpoints/tiny/{layout}/preprocessor_config.json")
        if layout == "hf":
            size["size"] = {"height": spec["image"], "width": spec["image"]}
            files[f"checkpoints/{name}/hf/processor_config.json"] = {
                "image_seq_length": config.image_seq_length,
                "processor_class": "InternVLProcessor",
            }
        else:
            size["size"] = size["crop_size"] = spec["image"]
        files[f"checkpoints/{name}/{layout}/preprocessor_config.json"] = size
    return files


def reload_check(name):
    """The written `hf` checkpoint, read by transformers, gives the same heads."""
    folder = GOLDEN / f"checkpoints/{name}/hf"
    model = InternVLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    want = load_file(GOLDEN / f"model_{name}.safetensors")
    frames = want["frames"].numpy()
    got, _ = stages(model, AutoTokenizer.from_pretrained(folder), frames, PROMPTS[0])
    return max((got[k].float() - want[k].float()).abs().max().item() for k in want)
