"""How much noise each training objective puts into the gradient, at a trained checkpoint.

    python -m bench.study.gradient_variance --study exp/study

Batches of training samples are kept fixed, the noise (times and masks) is drawn anew M times, and
`gradient_noise` says how far the gradients of the language model's parameters scatter around their
mean. Writes gradient_variance.json into the study's folder, unless it is there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.study.gradient_noise import (
    OBJECTIVES,
    Measured,
    Objective,
    draw_noise,
    measure,
    summarise,
    table,
)

if TYPE_CHECKING:
    from torch import Tensor

    from llava.model.builder import Loaded
    from llava.model.language_model.llava_qwen import LlavaQwenForMaskedDiffusion

RESULT_FILE = "gradient_variance.json"
FROM_RUN = "complementary_uniform"


class Batches:
    """Fixed batches of training samples before a trained model, the tower's features kept."""

    def __init__(self, loaded: Loaded, args: argparse.Namespace) -> None:
        from llava.data.samples.dataset import AnswerFill, Collator, ReportDataset
        from llava.data.samples.reading import load_entries

        self.model, self.args = loaded.model, args
        wanted = args.batches * args.batch_size
        entries = load_entries(args.data_path, args.image_folder)[:wanted]
        if len(entries) < wanted:
            raise ValueError(
                f"{args.data_path} has {len(entries)} entries for {args.batches} batches of "
                f"{args.batch_size}; ask for fewer"
            )
        self.samples = ReportDataset(
            entries,
            loaded.tokenizer,
            loaded.image_processor,
            layout=loaded.model.image_layout,
            fill=AnswerFill("canvas", args.canvas),
        )
        self.collate = Collator(loaded.tokenizer.pad_token_id)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """What the model takes, and `sample_index`."""
        import torch

        size, device = self.args.batch_size, self.model.device
        chosen = range(index * size, (index + 1) * size)
        batch = self.collate([self.samples[i] for i in chosen])
        batch = {name: value.to(device) for name, value in batch.items()}
        with torch.no_grad():
            batch["image_features"] = self.model.vision_tower(batch.pop("images"))
        return batch


def measure_batch(batches: Batches, index: int) -> dict[Objective, Measured]:
    """Every objective on one batch."""
    args, model = batches.args, batches.model
    batch, parameters = batches[index], trained_parameters(model)
    samples = batch.pop("sample_index").tolist()
    found = {}
    for objective in OBJECTIVES:
        model.config.update(
            {"loss_weighting": objective.weighting, "complementary": objective.complementary}
        )
        draw_loss = partial(_loss, model, objective, batch, samples, args)
        found[objective] = measure(draw_loss, parameters, args.draws)
        print(f"batch {index}, {objective.name}: trace {found[objective].trace:.3g}", flush=True)
    return found


def _loss(
    model: LlavaQwenForMaskedDiffusion,
    objective: Objective,
    batch: dict[str, Tensor],
    samples: Sequence[int],
    args: argparse.Namespace,
    draw: int,
) -> Tensor:
    import torch

    from llava.constants import IGNORE_INDEX

    noise = draw_noise(objective, batch["labels"] != IGNORE_INDEX, samples, draw, args.seed)
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=args.bf16):
        return model(**batch, noise=noise).loss


def trained_parameters(model: LlavaQwenForMaskedDiffusion) -> list[Tensor]:
    """The language model's; everything else is frozen."""
    model.requires_grad_(False)
    model.model.requires_grad_(True)
    model.lm_head.requires_grad_(True)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    args.model_path = args.model_path or args.study / "runs" / FROM_RUN / "seed0"
    args.data_path = args.data_path or args.study / "data" / "train_llave_llada.json"
    args.image_folder = args.image_folder or args.study / "phantom"
    output = args.study / RESULT_FILE
    if output.is_file():
        print(f"{output} is there already; delete it to measure again")
        return 0
    import torch

    from llava.model.builder import load_pretrained_model
    from llava.store import write_json
    from llava.train.optimizers.denormals import flushed

    try:
        loaded = load_pretrained_model(
            args.model_path, device=args.device, torch_dtype=torch.float32
        )
        batches = Batches(loaded, args)
        with flushed():  # as training does
            found = [measure_batch(batches, index) for index in range(args.batches)]
        rows = summarise(found)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result = {"command": _command(args), "rows": [asdict(row) for row in rows]}
    write_json(output, result)
    print(table(result["rows"]))
    return 0


def _command(args: argparse.Namespace) -> str:
    counts = ("draws", "batches", "batch_size", "canvas", "seed")
    words = [f"--{name.replace('_', '-')} {getattr(args, name)}" for name in counts]
    words += ["--bf16"] if args.bf16 else []
    return " ".join(["python -m bench.study.gradient_variance", *words])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.study.gradient_variance",
        description="Measure the variance of the gradient over the noise of each objective, at a "
        "trained checkpoint and fixed samples.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--study", type=Path, default=Path("exp/study"), help="folder of the study")
    add("--model-path", type=Path, help=f"checkpoint (default: runs/{FROM_RUN}/seed0 of the study)")
    add("--data-path", type=Path, help="conversations (default: the study's for training)")
    add("--image-folder", type=Path, help="root of their images (default: the study's phantoms)")
    add("--draws", type=int, default=32, help="of the noise, for each batch")
    add("--batches", type=int, default=3, help="batches of samples, each measured on its own")
    add("--batch-size", type=int, default=8, help="samples of a batch")
    add("--canvas", type=int, default=64, help="positions of an answer")
    add("--seed", type=int, default=0, help="of the noise")
    add("--bf16", action="store_true", help="bf16 arithmetic, fp32 weights and gradients")
    add("--device", help="default: cuda if there is one, else cpu")
    return parser


if __name__ == "__main__":
    sys.exit(main())
