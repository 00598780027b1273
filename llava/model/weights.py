"""Read a checkpoint's weights; whatever does not fit is an error that names it.

The one door to weight files, for the language model, the vision tower and whole checkpoints:
safetensors only (a pickle can run code when it is read), every tensor present and of its shape.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import PreTrainedModel

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def load_weights(
    model_class: type[PreTrainedModel],
    path: str | Path,
    may_lack: Callable[[str], bool] = lambda key: False,
    may_hold: Callable[[str], bool] = lambda key: False,
) -> PreTrainedModel:
    """A model in fp32 on the CPU, from a folder or a hub name.

    may_lack, may_hold: tensors that may be missing, and unknown ones that are left unread.
    Raises ValueError or FileNotFoundError naming the checkpoint, its tensors and the remedy.
    """
    _check_safetensors(path)
    try:
        model, report = model_class.from_pretrained(
            str(path),
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are in the report
        )
    except SafetensorError as error:
        raise ValueError(
            f"a weight file of {str(path)!r} is damaged: {error}; copy it again"
        ) from error
    except StrictDataclassError as error:
        raise ValueError(f"config.json of {str(path)!r} is wrong: {one_line(error)}") from error
    except OSError as error:
        raise FileNotFoundError(f"cannot load {str(path)!r}: {one_line(error)}") from error
    problems = {
        "lacks": [key for key in report["missing_keys"] if not may_lack(key)],
        "holds unknown": [key for key in report["unexpected_keys"] if not may_hold(key)],
        "misshapes": [
            f"{key} {tuple(found)} instead of {tuple(wanted)}"
            for key, found, wanted in report["mismatched_keys"]
        ],
    }
    _check_problems(problems, path)
    return model


def one_line(error: Exception) -> str:
    """The message of an error of another library, on one line."""
    return " ".join(str(error).split())


def _check_safetensors(path: str | Path) -> None:
    folder = Path(path)
    if not folder.is_dir() or any(folder.glob("model*.safetensors")):
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    found = f" ({', '.join(pickles[:8])} is a pickle, which is never read)" if pickles else ""
    raise FileNotFoundError(
        f"{str(folder)!r} has no weights in safetensors{found}; download or save it as safetensors"
    )


def _check_problems(problems: dict[str, list[str]], path: str | Path) -> None:
    for problem, keys in problems.items():
        if keys:
            more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
            raise ValueError(
                f"checkpoint {str(path)!r} {problem} tensors: {', '.join(sorted(keys)[:8])}{more}; "
                "copy it again, or check that config.json belongs to it"
            )
