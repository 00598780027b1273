"""The library's imports run one way: the layers of pyproject.toml, and no circle anywhere."""

from graphlib import TopologicalSorter
from pathlib import Path

import grimp
from importlinter import cli

ROOT = Path(__file__).resolve().parents[1]


def test_the_layers_of_the_library_hold(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    # Its logging configuration silences the loggers of everything else in the process.
    monkeypatch.setattr(cli.logging_config, "dictConfig", lambda configuration: None)
    assert cli.lint_imports(no_cache=True) == 0, capsys.readouterr().out


def test_no_module_imports_itself_by_way_of_others():
    """Imports for type checking are counted; a package's own `__init__` is not an import of it."""
    graph = grimp.build_graph("llava", cache_dir=None)
    modules = {name for name in graph.modules if not graph.find_children(name)}
    imports = {name: graph.find_modules_directly_imported_by(name) & modules for name in modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, naming the circle
