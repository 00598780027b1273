"""The model as lmms-eval knows it: `--model llava_onevision_qwen`, registered by entry point.

    lmms-eval's requests -> items -> `llava.writing.many` -> texts, and a line each in a `RecordLog`

Every process of the run writes the share of documents that lmms-eval deals it (document number
modulo the number of processes) on its own device. Generation settings are lmms-eval's generation
keywords and go through `SamplingConfig`, which refuses what it does not know.
"""

import atexit
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from llava.command_line import end_with_parent
from llava.constants import IMAGE_PLACEHOLDER
from llava.eval.run.lmms_run import LAUNCHER, MODEL
from llava.store import RecordLog
from llava.writing.items import Item, context_of
from llava.writing.many import batches, unwritten, write_items
from llava.writing.records import Prediction

if TYPE_CHECKING:
    import torch
    from lmms_eval.models.registry_v2 import ModelManifest

    from llava.diffusion.sampler import SamplingConfig
    from llava.writing.writer import ReportWriter

_INJECTED_UNTIL = ["\n\n"]
"""lmms-eval's stop for a task that names none: it would cut a report of several paragraphs."""

_NEUTRAL = {"top_p": (None, 0, 1), "top_k": (None, 0), "num_beams": (None, 1)}
"""Keywords of autoregressive decoding that other tasks set, with the values that do nothing."""


def manifest() -> "ModelManifest":
    """The entry point: lmms-eval's registry calls it while being imported."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id=MODEL,
        simple_class_path=f"{LlavaOnevisionQwen.__module__}.{LlavaOnevisionQwen.__name__}",
    )


@dataclass(frozen=True)
class ModelArguments:
    """`--model_args`, with lmms-eval's own --batch_size and --device.

    pretrained: the checkpoint folder. device, dtype: by default those of `ReportWriter`.
    predictions: a folder for the predictions of each process (rank0.jsonl, ...); None: not kept.
    resume: keep what the folder holds, as it comes from the same run, killed before its end.
    """

    pretrained: str
    device: str | None = None
    dtype: str | None = None
    batch_size: int = 1
    predictions: str | None = None
    resume: bool = False

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "ModelArguments":
        """Raises ValueError on an unknown key (with the nearest known one) or a bad batch size."""
        from llava.diffusion.config import check_keys

        check_keys("model argument", given, [field.name for field in fields(cls)])
        if "pretrained" not in given:
            raise ValueError("--model_args lacks pretrained=FOLDER, the checkpoint to evaluate")
        batch_size = str(given.get("batch_size", 1))
        if not batch_size.isdecimal() or int(batch_size) < 1:
            raise ValueError(f"batch_size={batch_size} is not a positive whole number")
        return cls(
            **{**given, "pretrained": str(given["pretrained"]), "batch_size": int(batch_size)}
        )


class LlavaOnevisionQwen(lmms):
    """Writes reports for lmms-eval with a `ReportWriter`."""

    is_simple = True

    def __init__(
        self,
        writer: "ReportWriter",
        device: "torch.device",
        batch_size: int = 1,
        predictions: Path | None = None,
        resume: bool = False,
    ) -> None:
        super().__init__()
        self.writer: ReportWriter | None = writer
        self.batch_size = batch_size
        self._device = device
        self._rank, self._world_size = _place_in_run()
        self._log = _open_log(predictions, self._rank, resume) if predictions else None

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict | None = None
    ) -> "LlavaOnevisionQwen":
        """How lmms-eval builds the model: the checkpoint is loaded onto this process's device."""
        import torch
        from accelerate import PartialState
        from lmms_eval.utils import simple_parse_args_string

        from llava.writing.writer import ReportWriter

        if LAUNCHER in os.environ:
            end_with_parent(int(os.environ[LAUNCHER]))
        extra = {
            key: value for key, value in (additional_config or {}).items() if value is not None
        }
        arguments = ModelArguments.from_dict({**simple_parse_args_string(arg_string), **extra})
        device = torch.device(arguments.device or PartialState().device)
        writer = ReportWriter.from_pretrained(
            arguments.pretrained, device=device, dtype=arguments.dtype
        )
        predictions = Path(arguments.predictions) if arguments.predictions else None
        return cls(writer, device, arguments.batch_size, predictions, arguments.resume)

    @property
    def device(self) -> "torch.device":
        return self._device

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The report of each request, in their order; "" for those that only pad a short rank.

        What the log holds of an earlier start is not written again.
        """
        assert self.writer is not None, "generate_until after clean"
        wanted = [(each, self._item(each)) for each in requests if not _is_padding(each)]
        kept = self._log.records if self._log else {}
        texts = {name: record["prediction"] for name, record in kept.items()}
        label = f"reports (process 1 of {self._world_size})" if self._rank == 0 else None
        for generation, group in groupby(wanted, key=lambda pair: pair[0].args[1]):
            items = {item.id: item for _, item in group}  # lmms-eval may repeat a document
            share = unwritten(batches(list(items.values()), self.batch_size), texts)
            sampling = sampling_config(generation)
            for records in write_items(share, self.writer, sampling, _stop, progress=label):
                texts |= {record.id: record.prediction for record in records}
                if self._log:
                    self._log.write(map(asdict, records))
        names = iter(item.id for _, item in wanted)
        return ["" if _is_padding(request) else texts[next(names)] for request in requests]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("a masked-diffusion model has no likelihood of a continuation")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("this model writes one report per request, in a single round")

    def clean(self) -> None:
        """lmms-eval is done with the model: free its memory before the scoring."""
        self.writer = None
        super().clean()

    def _item(self, instance: Instance) -> Item:
        """Our own documents (`eval.documents`) say which record they want; others have a name."""
        from llava.writing.writer import Request

        prompt, _, doc_to_visual, doc_id, task, split = instance.args
        document = self.task_dict[task][split][doc_id]
        images = tuple(doc_to_visual(document))
        if IMAGE_PLACEHOLDER not in prompt:
            prompt = f"{IMAGE_PLACEHOLDER}\n" * len(images) + prompt
        name = str(document["id"]) if "listed_images" in document else f"{task}/{split}/{doc_id}"
        record = Prediction(
            id=name,
            prediction="",
            reference=document.get("reference", ""),
            context=context_of(prompt),
            images=tuple(document.get("listed_images", ())),
            image_folder=document.get("image_folder", ""),
            study_id=document.get("study_id", name),
        )
        return Item(Request(images, prompt, seed=doc_id), record)


def sampling_config(generation: Mapping[str, Any]) -> "SamplingConfig":
    """Translate lmms-eval's generation keywords. Raises ValueError on those without a meaning here.

    `until` becomes `stop`, except lmms-eval's own default; `max_new_tokens` becomes `gen_length`;
    `do_sample` must agree with the temperature; neutral autoregressive keywords are dropped.
    """
    from llava.diffusion.sampler import SamplingConfig

    settings = {
        key: value
        for key, value in generation.items()
        if key not in _NEUTRAL or value not in _NEUTRAL[key]
    }
    until = settings.pop("until", None)
    if until and list(until) != _INJECTED_UNTIL:
        _rename(settings, "until", until, "stop")
    if "max_new_tokens" in settings:
        _rename(settings, "max_new_tokens", settings.pop("max_new_tokens"), "gen_length")
    sampled = settings.pop("do_sample", None)
    config = SamplingConfig.from_dict(settings)
    if sampled not in (None, True, False):
        raise ValueError(f"do_sample={sampled!r} is not True or False")
    if sampled is not None and bool(sampled) != (config.temperature > 0):
        raise ValueError(
            f"do_sample={sampled} contradicts temperature={config.temperature}; "
            "give only temperature"
        )
    return config


def _rename(settings: dict[str, Any], given: str, value: Any, name: str) -> None:
    if name in settings and settings[name] != value:
        raise ValueError(
            f"{given}={value!r} contradicts {name}={settings[name]!r}; give only {name}"
        )
    settings[name] = value


def _is_padding(request: Instance) -> bool:
    """lmms-eval gives each rank the same number of requests; the extra ones are never scored."""
    return bool((request.metadata or {}).get("__padding_only__"))


def _stop(item: Item, error: Exception) -> None:
    """An evaluation has a report of every document or none."""
    raise error


def _place_in_run() -> tuple[int, int]:
    """(rank, number of processes). Raises ValueError if each would do all the work."""
    from accelerate import PartialState

    state, launched = PartialState(), int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        raise ValueError(
            f"{launched} processes were launched but accelerate sees {state.num_processes}; "
            "without GPUs, set ACCELERATE_USE_CPU=true"
        )
    if launched > 1:
        atexit.register(_leave_run)
    return state.process_index, state.num_processes


def _leave_run() -> None:
    """On CPUs, processes that exit with an open process group sometimes abort."""
    import torch

    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def _open_log(folder: Path, rank: int, resume: bool) -> RecordLog:
    path = folder / f"rank{rank}.jsonl"
    if path.exists() and not resume:
        raise ValueError(
            f"{path} holds the predictions of another run; choose a new folder, or pass "
            "resume=True if it is the same run"
        )
    return RecordLog(path)
