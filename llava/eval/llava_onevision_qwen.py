"""The model as lmms-eval knows it: `--model llava_onevision_qwen`, registered by entry point.

    lmms-eval's requests -> batches -> ReportWriter -> texts, each also kept as a JSON line at once

Every process of the run writes the share of documents that lmms-eval deals it (document number
modulo the number of processes) on its own device. Generation settings are lmms-eval's generation
keywords and go through `SamplingConfig`, which refuses what it does not know.
"""

import atexit
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from llava.constants import IMAGE_PLACEHOLDER
from llava.eval.lmms_run import MODEL
from llava.eval.predictions import Prediction, PredictionLog, token_texts

if TYPE_CHECKING:
    import torch
    from lmms_eval.models.registry_v2 import ModelManifest

    from llava.diffusion.sampler import SamplingConfig
    from llava.writing.writer import Report, ReportWriter, Request

_INJECTED_UNTIL = ["\n\n"]
"""What lmms-eval stops at when a task says nothing: it would cut a report of several paragraphs."""

_NEUTRAL = {"top_p": (None, 0, 1), "top_k": (None, 0), "num_beams": (None, 1)}
"""Keywords of autoregressive decoding that other tasks set, and the values that change nothing."""


def manifest() -> "ModelManifest":
    """What the entry point gives lmms-eval, whose registry asks for it while being imported."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id=MODEL,
        simple_class_path=f"{LlavaOnevisionQwen.__module__}.{LlavaOnevisionQwen.__name__}",
    )


@dataclass(frozen=True)
class ModelArguments:
    """`--model_args`, with lmms-eval's own --batch_size and --device.

    pretrained: the checkpoint folder. device, dtype: by default those of `ReportWriter`.
    predictions: a folder for the predictions of each process (rank0.jsonl, ...); none: not kept.
    resume: what is in that folder comes from the same run, killed before its end, and is kept.
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
        self._log = _prediction_log(predictions, self._rank, resume) if predictions else None

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict | None = None
    ) -> "LlavaOnevisionQwen":
        """How lmms-eval builds the model: the checkpoint is loaded onto this process's device."""
        import torch
        from accelerate import PartialState
        from lmms_eval.utils import simple_parse_args_string

        from llava.writing.writer import ReportWriter

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
        """The report of each request, in their order; "" for those that only pad a short rank."""
        from tqdm import tqdm

        wanted = [request for request in requests if not _is_padding(request)]
        reports: list[str] = []
        label = f"reports (process 1 of {self._world_size})"
        with tqdm(total=len(wanted), desc=label, disable=self._rank != 0) as bar:
            for generation, batch in _batches(wanted, self.batch_size):
                reports += self._write(batch, sampling_config(generation))
                bar.update(len(batch))
        texts = iter(reports)
        return ["" if _is_padding(request) else next(texts) for request in requests]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("a masked-diffusion model has no likelihood of a continuation")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("this model writes one report per request, in a single round")

    def clean(self) -> None:
        """lmms-eval is done with the model: let its memory go before the scoring."""
        self.writer = None
        super().clean()

    def _write(self, batch: Sequence[Instance], sampling: "SamplingConfig") -> list[str]:
        assert self.writer is not None, "generate_until after clean"
        kept = self._log.find([self._name(instance) for instance in batch]) if self._log else None
        if kept is not None:
            return [prediction.prediction for prediction in kept]
        requests = [self._request(instance) for instance in batch]
        reports = self.writer.write(requests, sampling)
        if self._log:
            rows = zip(batch, requests, reports, strict=True)
            self._log.add([self._record(*row) for row in rows])
        return [report.text for report in reports]

    def _name(self, instance: Instance) -> str:
        return str(self._document(instance).get("id", instance.args[3]))

    def _document(self, instance: Instance) -> dict[str, Any]:
        _, _, _, doc_id, task, split = instance.args
        return self.task_dict[task][split][doc_id]

    def _request(self, instance: Instance) -> "Request":
        from llava.writing.writer import Request

        prompt, _, doc_to_visual, doc_id, *_ = instance.args
        images = tuple(doc_to_visual(self._document(instance)))
        if IMAGE_PLACEHOLDER not in prompt:
            prompt = f"{IMAGE_PLACEHOLDER}\n" * len(images) + prompt
        return Request(images=images, prompt=prompt, seed=doc_id)

    def _record(self, instance: Instance, request: "Request", report: "Report") -> Prediction:
        assert self.writer is not None
        document, name = self._document(instance), self._name(instance)
        return Prediction(
            id=name,
            prediction=report.text,
            reference=document.get("reference", ""),
            context=request.prompt.replace(IMAGE_PLACEHOLDER, "").strip(),
            images=tuple(document.get("listed_images", ())),
            image_folder=document.get("image_folder", ""),
            study_id=document.get("study_id", name),
            ended=report.ended,
            nfe=report.nfe,
            tokens=token_texts(report.token_ids, self.writer.tokenizer),
            confidence=tuple(report.confidence),
            decided_at=tuple(report.decided_at),
        )


def sampling_config(generation: Mapping[str, Any]) -> "SamplingConfig":
    """lmms-eval's generation keywords -> how to decode. Raises ValueError on what has no meaning.

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


def _batches(
    requests: Sequence[Instance], size: int
) -> Iterator[tuple[Mapping[str, Any], list[Instance]]]:
    """Up to `size` neighbours with the same generation keywords."""
    for _, group in groupby(requests, key=lambda request: repr(request.args[1])):
        while batch := list(islice(group, size)):
            yield batch[0].args[1], batch


def _place_in_run() -> tuple[int, int]:
    """(rank, number of processes). Raises ValueError when they would repeat each other's work."""
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
    """On CPUs, processes that exit with an open group sometimes abort."""
    import torch

    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def _prediction_log(folder: Path, rank: int, resume: bool) -> PredictionLog:
    path = folder / f"rank{rank}.jsonl"
    if path.exists() and not resume:
        raise ValueError(
            f"{path} holds the predictions of another run; choose a new folder, or pass "
            "resume=True if it is the same run"
        )
    return PredictionLog(path)
