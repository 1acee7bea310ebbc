"""The house keeps its own rules: sizes, floors, what an import costs, what is in the wheel, one version everywhere."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "tokentape"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


def named(path: Path) -> str:
    """The path as it reads from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=named(path))


# sizes and names


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_module_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < MAX_MODULE_LINES


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_functions_are_short(path: Path) -> None:
    functions = [n for n in ast.walk(parsed(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {f"{f.name}, line {f.lineno}": (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert {f: n for f, n in lengths.items() if n >= MAX_FUNCTION_LINES} == {}


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
    assert [named(path) for path in MODULES if path.name in drawers] == []


# floors


def dotted(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def named_at_import(body: list[ast.stmt], package: str) -> Iterator[str]:
    """Dotted names that a body imports when it is run, so neither inside functions nor under TYPE_CHECKING."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from named_at_import(node.body + node.orelse, package)
        elif isinstance(node, ast.Try):
            handlers = [statement for handler in node.handlers for statement in handler.body]
            yield from named_at_import(node.body + handlers + node.orelse + node.finalbody, package)


def import_graph() -> dict[str, set[str]]:
    paths = {dotted(path): path for path in MODULES}
    graph = {}
    for module, path in paths.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = named_at_import(parsed(path).body, package)
        # `from a.b import c` draws an arrow to the module a.b.c where there is one, else to a.b
        nearest = (name if name in paths else name.rpartition(".")[0] for name in names)
        graph[module] = {name for name in nearest if name in paths} - {module}
    return graph


def reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo += graph[module]
    return seen


def test_imports_draw_no_circle() -> None:
    graph = import_graph()
    assert len(graph) > 10, "the graph is nearly empty: the test looks in the wrong place"
    assert [module for module in graph if module in reached(graph, module)] == []


def test_no_arrow_points_upward() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("import-linter is not installed beside this Python")
    done = subprocess.run([command, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


# what an import costs


@pytest.mark.parametrize("module", ["", ".errors", ".clock", ".data", ".world", ".study", ".views", ".cli"])
def test_import_leaves_the_heavy_ones_out(module: str) -> None:
    heavy = "{'torch', 'transformers', 'tokenizers', 'safetensors', 'huggingface_hub', 'scipy'}"
    program = f"import sys, tokentape{module}; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


# what is committed


def committed() -> list[Path]:
    """Files that git tracks, and those it would track if asked to add everything."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"git cannot list the files here: {done.stderr.strip()}")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    """The text of a file, empty for one that holds bytes or is very large."""
    data = path.read_bytes() if path.stat().st_size < 1_000_000 else b""
    return "" if b"\0" in data else data.decode("utf-8", errors="replace")


def test_no_path_of_one_machine_is_committed() -> None:
    leak = re.compile(r"(?<![\w.])/(work|root|farm)/")
    assert leak.search("see /" + "work/here") and not leak.search("../" + "work/here")
    found = [
        f"{named(path)}:{number}"
        for path in committed()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if leak.search(line)
    ]
    assert found == []


def test_no_tape_is_committed_but_golden_ones() -> None:
    tapes = [named(path) for path in committed() if path.suffix == ".tape"]
    assert [name for name in tapes if not name.startswith("tests/")] == []


# versions


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def plain(name: str) -> str:
    """The name of a distribution as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(re.fullmatch(r"(\S+)==(\S+)", line).groups() for line in lines if line and not line.startswith("#"))


def needed() -> set[str]:
    """Every distribution that `.[local,dev]` leads to in this environment, by its plain name."""
    requirements = pytest.importorskip("packaging.requirements")
    declared = project()["project"]
    extras = declared["optional-dependencies"]
    todo = [requirements.Requirement(r) for r in declared["dependencies"] + extras["local"] + extras["dev"]]
    seen: dict[str, set[str]] = {}
    while todo:
        wanted = todo.pop()
        name = plain(wanted.name)
        if name in seen and wanted.extras <= seen[name]:
            continue
        asked = seen.setdefault(name, set())
        asked |= wanted.extras
        try:
            below = importlib.metadata.requires(wanted.name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(requirements.Requirement, below):
            marks = [{"extra": extra} for extra in asked or {""}]
            if requirement.marker is None or any(requirement.marker.evaluate(mark) for mark in marks):
                todo.append(requirement)
    return set(seen)


def in_own_environment() -> None:
    """Skip unless this Python is the one that `make env` makes: another may hold other versions on purpose."""
    if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        pytest.skip("not run by the Python in .venv")
    if not (sys.platform == "linux" and sys.version_info[:2] == (3, 11)):
        pytest.skip("constraints.txt is written for Python 3.11 on Linux")


def test_every_pin_is_exact_and_sorted() -> None:
    names = [name.lower() for name in pins()]
    assert names == sorted(names)
    assert pins()["torch"] == "2.13.0"


def test_everything_needed_is_pinned() -> None:
    in_own_environment()
    builds = {name for name in needed() if name.startswith("nvidia-") or name.startswith("cuda-") or name == "triton"}
    assert sorted(needed() - builds - {plain(name) for name in pins()}) == []


def test_every_pin_is_installed_or_not_needed() -> None:
    in_own_environment()
    wanted = needed()
    found = {}
    for name, version in pins().items():
        try:
            installed = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            installed = "missing" if plain(name) in wanted else version
        if installed != version:
            found[name] = f"{installed}, pinned {version}"
    assert found == {}


def test_one_version_everywhere() -> None:
    version = re.search(r'__version__ = "(.+)"', (PACKAGE / "_version.py").read_text(encoding="utf-8")).group(1)
    latest = re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert (latest, cited) == (version, version)
    program = "import tokentape; print(tokentape.__version__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == version, done.stderr


# the package that is shipped


def built(kind: str, place: Path) -> Path:
    pytest.importorskip("hatchling", reason="hatchling, which builds the package, is not installed")
    # built from a copy, so that nothing is written beside the sources
    source = place / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", "node_modules", "__pycache__", "*_cache", "dist", "build")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(place / "dist")]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    (package,) = (place / "dist").iterdir()
    return package


def shipped() -> set[str]:
    """What has to be in every package: all modules, the demo model, the templates, the type marker."""
    demo = [path for path in (PACKAGE / "models" / "demo").glob("*") if path.suffix in {".json", ".md", ".safetensors"}]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in demo}
    templates = list((PACKAGE / "tasks" / "templates").glob("*.toml"))
    assert {"pair.toml", "sentiment.toml", "story.toml"} <= {path.name for path in templates}
    return {path.relative_to(SOURCE).as_posix() for path in [*MODULES, *demo, *templates, PACKAGE / "py.typed"]}


@pytest.mark.slow
def test_wheel_holds_the_demo_model_and_the_type_marker(tmp_path: Path) -> None:
    with zipfile.ZipFile(built("wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
    assert shipped() - names == set()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"tokentape"}, "something beside the package"
    assert not [name for name in names if name.endswith((".tape", ".pyc"))]


@pytest.mark.slow
def test_sdist_holds_what_the_wheel_is_made_of(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"src/{name}" for name in shipped()} - names == set()
    assert {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "constraints.txt", "Makefile"} <= names


def test_no_two_files_of_tests_have_one_name():
    """A folder of tests is no package: of two modules of one name the first would stand for both."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name not in ("conftest.py", "__init__.py")]
    assert {name for name in names if names.count(name) > 1} == set()
