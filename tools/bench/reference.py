#!/usr/bin/env python3
"""Times transformers' InternVL on one segment, for the figures beside ours in BENCHMARKS.md.

    python -m venv venv && venv/bin/pip install -r tests/golden/requirements.txt
    venv/bin/python tools/bench/reference.py DIR --dtype f32 --threads 2

DIR is a checkpoint in the hf layout, e.g. from `headhunt model synthesize --layout hf`, or only its
config.json: then the weights are random, which takes the same time. One pass is the vision tower and
projector on the frames, then the language model on the whole prompt with the logits of the last token
only (sdpa attention). Prints one JSON object.
"""

import argparse
import json
import resource
import statistics
import time
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, InternVLForConditionalGeneration

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="checkpoint folder in the hf layout")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--attention", default="sdpa", help="sdpa or eager")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--frames", type=int, default=16, help="frames of the segment")
    parser.add_argument(
        "--text-tokens",
        type=int,
        default=176,
        help="tokens of the prompt that are not the frames' (176: 16 frames, the first prompt)",
    )
    parser.add_argument("--repeats", type=int, default=1, help="timed passes after the warm-up")
    parser.add_argument("--warm-up", type=int, default=0, help="passes before the timed ones")
    return parser.parse_args()


def load(args):
    options = {"dtype": DTYPES[args.dtype], "attn_implementation": args.attention}
    if any(args.model.glob("*.safetensors")):
        model = InternVLForConditionalGeneration.from_pretrained(args.model, **options)
        weights = "checkpoint"
    else:
        torch.manual_seed(0)
        config = AutoConfig.from_pretrained(args.model)
        model = InternVLForConditionalGeneration._from_config(config, **options)
        weights = "random"
    return model.eval().to(args.device), weights


def wait(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()


class Segment:
    """Inputs of one segment, and its pass."""

    def __init__(self, model, args):
        config = model.config
        side, patch = config.vision_config.image_size[0], config.vision_config.patch_size[0]
        self.grid = side // patch
        per_frame = int((self.grid * config.downsample_ratio) ** 2)
        shape = (args.frames, 3, side, side)
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randn(shape, generator=generator)
        self.pixels = pixels.to(args.device, DTYPES[args.dtype])
        image = config.image_token_id
        before, rest = divmod(args.text_tokens, 2)
        words = torch.randint(0, min(image, 400), (args.text_tokens,), generator=generator)
        visual = torch.full((args.frames * per_frame,), image)
        self.ids = torch.cat([words[:before], visual, words[: before + rest]]).to(args.device)
        self.is_image = self.ids == image
        self.model, self.device = model, args.device

    def run(self):
        """Seconds of the vision and of the language part, and the last token's logits."""
        inner, config = self.model.model, self.model.config
        wait(self.device)
        start = time.perf_counter()
        patches = inner.vision_tower(pixel_values=self.pixels).last_hidden_state[:, 1:]
        patches = patches.reshape(len(self.pixels), self.grid, self.grid, -1)
        shuffled = inner.pixel_shuffle(patches, scale_factor=config.downsample_ratio)
        shuffled = shuffled.reshape(len(self.pixels), -1, shuffled.shape[-1])
        visual = inner.multi_modal_projector(shuffled)
        wait(self.device)
        middle = time.perf_counter()
        embeds = inner.get_input_embeddings()(self.ids).clone()
        embeds[self.is_image] = visual.reshape(-1, visual.shape[-1])
        out = inner.language_model(inputs_embeds=embeds[None], use_cache=False)
        logits = self.model.lm_head(out.last_hidden_state[:, -1])
        wait(self.device)
        end = time.perf_counter()
        return middle - start, end - middle, logits


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    model, weights = load(args)
    segment = Segment(model, args)
    passes = []
    with torch.inference_mode():
        for _ in range(args.warm_up):
            segment.run()
        cpu = time.process_time()
        for _ in range(args.repeats):
            vision, language, logits = segment.run()
            if not torch.isfinite(logits).all():
                raise SystemExit("the logits are not finite: these figures mean nothing")
            passes.append((vision, language))
        cpu = (time.process_time() - cpu) / args.repeats
    median = [statistics.median(column) for column in zip(*passes)]
    report = {
        "model": str(args.model),
        "weights": weights,
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu",
        "dtype": args.dtype,
        "attention": args.attention,
        "threads": args.threads,
        "frames": args.frames,
        "tokens": len(segment.ids),
        "repeats": args.repeats,
        "vision_s": round(median[0], 4),
        "language_s": round(median[1], 4),
        "segment_s": round(statistics.median(sum(p) for p in passes), 4),
        "cpu_s": round(cpu, 4),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    if args.device.startswith("cuda"):
        report["peak_device_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(report))


if __name__ == "__main__":
    main()
