#!/usr/bin/env python3
"""Times transformers' InternVL on segments, for the figures beside ours in BENCHMARKS.md.

    python -m venv venv && venv/bin/pip install -r tests/golden/requirements.txt
    venv/bin/python tools/bench/reference.py DIR --dtype f32 --threads 2

DIR is a checkpoint in the hf layout, e.g. from `headhunt model synthesize --layout hf`, or only its
config.json: then the weights are random, which takes the same time. One pass is the vision tower and
projector on the frames, then the language model on the whole prompt with the logits of the last token
only. Prints one JSON object per batch size.
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
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile each layer of both towers"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="segments of one pass")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--frames", type=int, default=16, help="frames of the segment")
    parser.add_argument(
        "--text-tokens",
        type=int,
        default=176,
        help="tokens of the prompt that are not the frames' (176: 16 frames, the first prompt)",
    )
    parser.add_argument(
        "--job",
        action="store_true",
        help="the authors' pipeline instead: 16 pictures of 1080p through PIL one after the other, then a "
        "pass with a hook at every o_proj; without decoding",
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
        # Made where it runs: an 8B model takes minutes on a CPU.
        with torch.device(args.device):
            model = InternVLForConditionalGeneration._from_config(config, **options)
        weights = "random"
    model = model.eval().to(args.device)
    if args.compile:
        # Layers of one kind share their code: minutes less of compiling, and the same kernels.
        for layer in [*model.model.vision_tower.encoder.layer, *model.model.language_model.layers]:
            layer.compile(dynamic=False)
    return model, weights


def wait(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()


class Segments:
    """Inputs of a batch of segments, and their pass."""

    def __init__(self, model, args, batch):
        config = model.config
        side, patch = config.vision_config.image_size[0], config.vision_config.patch_size[0]
        self.grid = side // patch
        per_frame = int((self.grid * config.downsample_ratio) ** 2)
        shape = (batch * args.frames, 3, side, side)
        generator = torch.Generator().manual_seed(1)
        pixels = torch.randn(shape, generator=generator)
        self.pixels = pixels.to(args.device, DTYPES[args.dtype])
        image = config.image_token_id
        before, rest = divmod(args.text_tokens, 2)
        words = torch.randint(0, min(image, 400), (args.text_tokens,), generator=generator)
        visual = torch.full((args.frames * per_frame,), image)
        ids = torch.cat([words[:before], visual, words[: before + rest]])
        self.ids = ids.repeat(batch, 1).to(args.device)
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
        out = inner.language_model(inputs_embeds=embeds, use_cache=False)
        logits = self.model.lm_head(out.last_hidden_state[:, -1])
        wait(self.device)
        end = time.perf_counter()
        return middle - start, end - middle, logits


def job(model, args):
    """A segment as the authors' release runs it (its load_video, build_transform and hooks)."""
    import numpy
    from PIL import Image
    from torchvision import transforms

    side = model.config.vision_config.image_size[0]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    transform = transforms.Compose(
        [
            transforms.Resize((side, side), interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(mean=mean, std=std),
        ]
    )
    captured = []
    layers = model.model.language_model.layers
    for layer in layers:
        layer.self_attn.o_proj.register_forward_pre_hook(
            lambda _, given: captured.append(given[0][:, -1, :].detach().cpu())
        )
    segment = Segments(model, args, 1)
    random = numpy.random.default_rng(1)
    noise = random.integers(0, 256, (args.frames, 1080, 1920, 3), dtype=numpy.uint8)
    rows = []
    with torch.inference_mode():
        for repeat in range(args.warm_up + args.repeats):
            captured.clear()
            start = time.perf_counter()
            tiles = [Image.fromarray(frame).resize((side, side)) for frame in noise]
            pixels = torch.stack([transform(tile) for tile in tiles])
            segment.pixels = pixels.to(DTYPES[args.dtype]).to(args.device)
            wait(args.device)
            prepared = time.perf_counter()
            segment.run()
            if repeat >= args.warm_up:
                rows.append((prepared - start, time.perf_counter() - prepared))
            if len(captured) != len(layers):
                raise SystemExit(f"{len(captured)} layers were captured")
    prepare, passing = (statistics.median(column) for column in zip(*rows))
    return {
        "job": True,
        "batch": 1,
        "tokens": segment.ids.shape[1],
        "prepare_s": round(prepare, 4),
        "forward_s": round(passing, 4),
        "pass_s": round(statistics.median(sum(row) for row in rows), 4),
    }


def measure(model, args, batch):
    segments = Segments(model, args, batch)
    passes = []
    with torch.inference_mode():
        for _ in range(args.warm_up):
            segments.run()
        cpu = time.process_time()
        for _ in range(args.repeats):
            vision, language, logits = segments.run()
            if not torch.isfinite(logits).all():
                raise SystemExit("the logits are not finite: these figures mean nothing")
            passes.append((vision, language))
        cpu = (time.process_time() - cpu) / args.repeats
    median = [statistics.median(column) for column in zip(*passes)]
    return {
        "batch": batch,
        "tokens": segments.ids.shape[1],
        "vision_s": round(median[0], 4),
        "language_s": round(median[1], 4),
        "pass_s": round(statistics.median(sum(p) for p in passes), 4),
        "cpu_s": round(cpu, 4),
    }


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    model, weights = load(args)
    report = {
        "model": str(args.model),
        "weights": weights,
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu",
        "dtype": args.dtype,
        "attention": args.attention,
        "compiled": args.compile,
        "threads": args.threads,
        "frames": args.frames,
        "repeats": args.repeats,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    for batch in args.batch[:1] if args.job else args.batch:
        figures = job(model, args) if args.job else measure(model, args, batch)
        figures["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if args.device.startswith("cuda"):
            figures["peak_device_bytes"] = torch.cuda.max_memory_allocated()
        print(json.dumps(report | figures), flush=True)


if __name__ == "__main__":
    main()
