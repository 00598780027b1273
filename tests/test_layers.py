"""The order of the library's modules: a module imports from its own layer or an earlier one.

The table names every module, by itself or by a pattern (the longest match counts). A new module
goes into it. The sources are read with `ast`, nothing is imported.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = {
    # Packages themselves, which import nothing.
    **dict.fromkeys(["llava", "llava.data", "llava.eval", "llava.model", "llava.train"], 1),
    "llava.model.language_model": 1,
    # 1: names, and mathematics on tensors
    "llava.constants": 1,
    "llava.image_layout": 1,
    "llava.interruption": 1,
    "llava.report_log": 1,
    "llava.pictures": 1,
    "llava.spelling": 1,
    "llava.diffusion*": 1,
    "llava.model.language_model.configuration_qwen": 1,
    "llava.model.projector": 1,
    # 2: one text, one image, one source, one score
    "llava.conversation": 2,
    "llava.dicom": 2,
    "llava.infill": 2,
    "llava.mm_utils": 2,
    "llava.model.flops": 2,
    "llava.model.siglip_encoder": 2,
    "llava.model.weights": 2,
    "llava.data.chexpert_plus": 2,
    "llava.data.cleaning": 2,
    "llava.data.context": 2,
    "llava.data.conversion": 2,
    "llava.data.counts": 2,
    "llava.data.entries": 2,
    "llava.data.entry": 2,
    "llava.data.entry_table": 2,
    "llava.data.inspection": 2,
    "llava.data.iu_xray": 2,
    "llava.data.json_stream": 2,
    "llava.data.mimic_*": 2,
    "llava.data.mixture": 2,
    "llava.data.phantom*": 2,
    "llava.data.records": 2,
    "llava.data.resize": 2,
    "llava.data.study_views": 2,
    "llava.data.sections": 2,
    "llava.data.splits": 2,
    "llava.data.table*": 2,
    "llava.data.views": 2,
    "llava.data.writer": 2,
    "llava.eval.agreement": 2,
    "llava.eval.baselines": 2,
    "llava.eval.cider": 2,
    "llava.eval.clinical": 2,
    "llava.eval.compare": 2,
    "llava.eval.denial": 2,
    "llava.eval.external*": 2,
    "llava.eval.health": 2,
    "llava.eval.java": 2,
    "llava.eval.labeler*": 2,
    "llava.eval.launch": 2,
    "llava.eval.nlg": 2,
    "llava.eval.overlap": 2,
    "llava.eval.phantom_*": 2,
    "llava.eval.predictions": 2,
    "llava.eval.report_language": 2,
    "llava.eval.scoring": 2,
    "llava.eval.significance": 2,
    # 3: the parts put together
    "llava.model.language_model.attention": 3,
    "llava.model.language_model.block_cache": 3,
    "llava.model.language_model.decoding": 3,
    "llava.model.language_model.denoising": 3,
    "llava.model.language_model.drift": 3,
    "llava.model.language_model.shadow": 3,
    "llava.model.language_model.static_step": 3,
    "llava.model.language_model.interval_cache": 3,
    "llava.model.language_model.modeling_qwen": 3,
    "llava.model.language_model.packing": 3,
    "llava.model.language_model.vocabulary": 3,
    "llava.model.image_checks": 3,
    "llava.model.llava_arch": 3,
    "llava.data.dataset": 3,
    "llava.data.inspect": 3,
    "llava.generate_items": 3,
    "llava.eval.collect": 3,
    "llava.eval.documents": 3,
    "llava.eval.protocol": 3,
    "llava.eval.page*": 3,
    "llava.eval.report_page": 3,
    # 4 to 7: the model, what builds and trains it, what runs it, the command lines
    "llava.model.language_model.llava_qwen": 4,
    "llava.model.builder": 5,
    "llava.train.*": 5,
    "llava.model.lora": 4,
    "llava.train.sample_reports": 6,
    "llava.train.train": 6,
    "llava.eval.features": 6,
    "llava.inference": 6,
    "llava.generate": 7,
    "llava.generate_many": 7,
    "llava.eval.evaluate": 7,
    "llava.eval.run": 7,
    "llava.eval.llava_onevision_qwen": 7,
}

FORBIDDEN = {"model": {"data", "train", "eval"}, "data": {"model", "eval"}, "eval": {"train"}}
"""Part of the library -> the parts that it never imports, whatever their layer."""

EXCEPTED = {("llava.data.inspect", "llava.eval.labeler")}

OPTIONAL = {"deepspeed", "gradio", "lmms_eval", "matplotlib", "peft", "pycocoevalcap", "pydicom"}
"""Heavy packages that not every user has: imported where they are used, never on the way in."""

MAY_NEED = {"llava.eval.llava_onevision_qwen": {"lmms_eval"}}
"""A module that only the package itself loads, to subclass what is in it."""


@dataclass(frozen=True)
class Import:
    """`target` is imported; `lazy`: inside a function; `typing`: under `if TYPE_CHECKING:` only."""

    target: str
    lazy: bool
    typing: bool


def read_library(folder: Path) -> dict[str, ast.Module]:
    """The syntax tree of each module below a package's folder, by dotted name."""
    trees = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        trees[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return trees


def imports_of(node: ast.AST, lazy: bool = False, typing: bool = False) -> Iterator[Import]:
    """Every import below a node; `from a import b` gives `a.b`, relative ones are refused."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, lazy, typing) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, f"line {child.lineno}: write imports from the package's root"
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from (Import(name, lazy, typing) for name in names)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            yield from imports_of(child, lazy, typing=True)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports_of(child, lazy or function, typing)


def edges(trees: Mapping[str, ast.Module], with_typing: bool) -> Iterator[tuple[str, str]]:
    """(importer, imported) among the modules of the library."""
    for name, tree in trees.items():
        for found in imports_of(tree):
            if found.target.split(".")[0] == "llava" and (with_typing or not found.typing):
                parent = found.target.rpartition(".")[0]
                yield name, found.target if found.target in trees else parent


def layer_of(name: str) -> int | None:
    """The layer that the longest matching entry of the table gives a module."""
    matching = [pattern for pattern in LAYERS if fnmatchcase(name, pattern)]
    return LAYERS[max(matching, key=len)] if matching else None


def upward_imports(trees: Mapping[str, ast.Module]) -> list[str]:
    pairs = [(a, b, layer_of(a), layer_of(b)) for a, b in edges(trees, with_typing=True)]
    return [
        f"{a} (layer {low}) imports {b} (layer {high})"
        for a, b, low, high in pairs
        if low is not None and high is not None and high > low
    ]


def circle(trees: Mapping[str, ast.Module]) -> list[str] | None:
    """The modules of a circle of imports, lazy ones included; None without one."""
    graph: dict[str, set[str]] = {name: set() for name in trees}
    for importer, imported in edges(trees, with_typing=False):
        if importer != imported:
            graph[importer].add(imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def forbidden_imports(trees: Mapping[str, ast.Module]) -> list[str]:
    def part(name: str) -> str:
        return name.split(".")[1] if "." in name else ""

    return [
        f"{a} imports {b}"
        for a, b in edges(trees, with_typing=True)
        if part(b) in FORBIDDEN.get(part(a), ()) and (a, b) not in EXCEPTED
    ]


def eager_optional_imports(trees: Mapping[str, ast.Module]) -> list[str]:
    return [
        f"{name} imports {found.target}"
        for name, tree in trees.items()
        for found in imports_of(tree)
        if not (found.lazy or found.typing)
        and found.target.split(".")[0] in OPTIONAL - MAY_NEED.get(name, set())
    ]


@pytest.fixture(scope="module")
def library() -> dict[str, ast.Module]:
    return read_library(ROOT / "llava")


def parse(**sources: str) -> dict[str, ast.Module]:
    """A made-up library: `model__builder="import x"` is the module llava.model.builder."""
    return {f"llava.{name.replace('__', '.')}": ast.parse(text) for name, text in sources.items()}


def test_every_module_has_a_layer(library):
    unknown = [name for name in library if layer_of(name) is None]
    assert not unknown, f"name them in LAYERS of {Path(__file__).name}: {unknown}"


def test_no_module_imports_from_a_later_layer(library):
    assert sum(1 for _ in edges(library, with_typing=True)) > 50
    assert not upward_imports(library)


def test_no_modules_import_one_another_in_a_circle(library):
    assert circle(library) is None


def test_model_data_and_eval_keep_to_their_side(library):
    assert not forbidden_imports(library)


def test_no_optional_package_is_imported_on_the_way_in(library):
    assert not eager_optional_imports(library)


def test_the_mathematics_needs_only_torch_and_itself(library):
    modules = {name: tree for name, tree in library.items() if name.startswith("llava.diffusion")}
    targets = [found.target for tree in modules.values() for found in imports_of(tree)]
    packages = {target.split(".")[0] for target in targets} - sys.stdlib_module_names
    assert packages == {"torch", "llava"}
    inside = [target for target in targets if target.startswith("llava.")]
    assert all(target.startswith("llava.diffusion.") for target in inside)


def test_the_decoding_loop_is_last_within_the_mathematics(library):
    importers = [a for a, b in edges(library, with_typing=True) if b == "llava.diffusion.sampler"]
    assert not [name for name in importers if name.startswith("llava.diffusion")]


def test_a_later_layer_is_noticed_even_inside_a_function():
    trees = parse(
        constants="def late():\n    from llava.model.builder import build\n",
        model__builder="import torch",
    )
    assert upward_imports(trees) == [
        "llava.constants (layer 1) imports llava.model.builder (layer 5)"
    ]


def test_a_circle_is_noticed_but_not_one_for_type_checkers_only():
    there, back = "from llava.diffusion.loss import f", "from llava.diffusion.masking import g"
    typing = f"if TYPE_CHECKING:\n    {back}"
    assert circle(parse(diffusion__masking=there, diffusion__loss=back))
    assert circle(parse(diffusion__masking=there, diffusion__loss=typing)) is None


def test_a_forbidden_side_is_noticed_and_the_exception_holds():
    wrong = parse(data__dataset="from llava.model import projector", model__projector="")
    assert forbidden_imports(wrong) == ["llava.data.dataset imports llava.model.projector"]
    right = parse(data__inspect="from llava.eval.labeler import label_report", eval__labeler="")
    assert not forbidden_imports(right)


def test_an_optional_package_is_noticed_at_the_top_and_allowed_in_a_function():
    assert eager_optional_imports(parse(mm_utils="try:\n    import pydicom\nexcept OSError: ..."))
    assert not eager_optional_imports(parse(mm_utils="def read():\n    import pydicom"))


def test_a_module_outside_the_table_has_no_layer():
    assert layer_of("llava.surprise") is None
    assert layer_of("llava.diffusion.surprise") == 1
    assert layer_of("llava.train.train") == 6
