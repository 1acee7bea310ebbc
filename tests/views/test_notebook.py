"""Values in a notebook: a frame with the page in it, a text beside it, and nothing that acts on the notebook."""

from __future__ import annotations

import html.parser
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tokentape as tt
import tokentape.views.notebook as shown
from data.tapes import explained, explained_together, write_tape
from tokentape.data.tape import open_tape, tape_of
from tokentape.errors import UsageError
from tokentape.views.page.explanation import explanation_html

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "notebooks" / "first_tape.ipynb"


class Frames(html.parser.HTMLParser):
    """The frames of a text of HTML, and every other element that is not inside of one."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.frames: list[dict[str, str | None]] = []
        self.others: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "iframe":
            self.frames.append(dict(attrs))
        else:
            self.others.append(tag)


@pytest.fixture(autouse=True)
def bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script and a style of a few letters in place of what is built, and the options as they were."""
    import tokentape.views.page.file as file

    monkeypatch.setattr(file, "bundle", lambda: ("start('&', \"'\")", "p{margin:0}"))
    monkeypatch.setattr(shown, "_options", shown.NotebookOptions())
    monkeypatch.delenv("TOKENTAPE_LANG", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_tape(tmp_path / "cat.tape")


def framed(value: Any) -> tuple[str, str]:
    """The page in the frame, as a browser reads it, and the text."""
    bundle = value._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    found = Frames(bundle["text/html"])
    (frame,) = found.frames
    assert found.others == ["pre"]  # for where frames are taken out; within the element no browser shows it
    assert frame["sandbox"] == "allow-scripts allow-downloads" and frame["allow"] == "clipboard-write"
    assert "src" not in frame and frame["title"]
    return frame["srcdoc"] or "", bundle["text/plain"]


def data_of(page: str) -> Any:
    return json.loads(page.partition('id="tokentape-data">')[2].partition("</script>")[0])


def test_a_tape_is_the_page_of_its_file(file: Path) -> None:
    from tokentape.views.page.budget import page_within
    from tokentape.views.page.file import page_html

    with open_tape(file) as tape:
        page, text = framed(tape)
        assert page == page_html(page_within(tape)).replace('id="tokentape"', 'id="tokentape" data-frame')
    assert "demo" in text and str(file) in text


def test_a_trace_is_the_page_of_itself(file: Path) -> None:
    with open_tape(file) as tape:
        page, text = framed(tape.traces[2])
        assert tape_of(tape.traces[2]).path == file
    assert [trace["number"] for trace in data_of(page)["tape"]["traces"]] == [2]
    assert "prompt 0" in text


def test_an_explanation_is_a_table_without_script() -> None:
    page, text = framed(explained())
    assert page == explanation_html(explained())
    assert "<script" not in page and "default-src 'none'" in page
    assert "&lt;b&gt;" in page and "<b>" not in page.replace("<body>", "")  # a label is text
    assert "\\u202e" in page and "\u202e" not in page
    assert "leave_one_out" in text
    rows = page.count("<tr>") - 3  # one of heads in each table
    assert rows == int((~np.ma.getmaskarray(explained().relevance)).sum())
    for value in explained().relevance.compressed().tolist():
        assert f"{value:+.3f}" in page
    assert page.count('class="against"') == int((explained().relevance.compressed() < 0).sum())


def test_an_explanation_of_one_answer_has_shares_and_says_that_nothing_was_checked() -> None:
    page, _ = framed(explained_together())
    assert "5 tokens from position 3 to 7 as one answer: 4.00 logits" in page
    assert "57 %" in page  # 2.0 of the tokens' 3.5
    assert "The replay was not checked: the tape has no log-probabilities." in page


def test_a_short_explanation_takes_little_room() -> None:
    heights = [
        int(Frames(one._repr_mimebundle_()["text/html"]).frames[0]["height"] or 0)
        for one in (explained_together(), explained())
    ]
    assert heights[0] < heights[1] <= 640


def test_the_language_is_the_readers(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tt.notebook(lang="zh")
    page, _ = framed(explained())
    assert '<html lang="zh-Hans">' in page and "3 个词元的依据" in page
    tt.notebook(lang="auto")
    monkeypatch.setenv("TOKENTAPE_LANG", "zh")
    with open_tape(file) as tape:
        assert '<html lang="zh-Hans">' in framed(tape)[0]


def test_options_hold_from_then_on(file: Path) -> None:
    assert tt.notebook() == shown.NotebookOptions(2_000_000, 640, "auto", True)
    assert tt.notebook(height=900, max_bytes=1).height == 900
    with open_tape(file) as tape:
        bundle = tape._repr_mimebundle_()
        assert 'height="900"' in bundle["text/html"]
        assert '"dropped":[{' in Frames(bundle["text/html"]).frames[0]["srcdoc"]
        tt.notebook(page=False)
        assert set(tape._repr_mimebundle_()) == {"text/plain"}
    for wrong in ({"height": 0}, {"max_bytes": -1}, {"lang": "fr"}):
        with pytest.raises(UsageError):
            tt.notebook(**wrong)  # type: ignore[arg-type]


def test_a_closed_tape_says_so(file: Path) -> None:
    tape = open_tape(file)
    trace = tape.traces[0]
    tape.close()
    for value in (tape, trace):
        bundle = value._repr_mimebundle_()
        assert set(bundle) == {"text/plain"}
        assert bundle["text/plain"].startswith(repr(value)) and "is closed" in bundle["text/plain"]


def test_what_a_guard_withheld_is_in_neither(tmp_path: Path) -> None:
    with open_tape(write_tape(tmp_path / "ruled.tape", n_runs=0, ruled=True)) as tape:
        for value in (tape, tape.traces[1]):
            page, text = framed(value)
            (*_, stopped) = data_of(page)["tape"]["traces"]
            assert "22" not in stopped["symbols"]["text"]  # where the guard stopped
            assert "'22'" not in text


def test_formatters_of_ipython_take_it(file: Path) -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    everything = formatters.DisplayFormatter()
    with open_tape(file) as tape:
        data, _ = everything.format(tape)
        assert data["text/html"].startswith("<iframe") and "TTFT" in data["text/plain"]
        only, _ = everything.format(tape, include={"text/plain"})
        assert set(only) == {"text/plain"}


TERMINAL = """
import sys
from IPython.terminal.interactiveshell import TerminalInteractiveShell
shell = TerminalInteractiveShell.instance()
import tokentape as tt
shell.run_cell(f"import tokentape as tt; tt.open({sys.argv[1]!r})")
assert "tokentape.views.page.document" not in sys.modules
"""


def test_a_terminal_gets_the_text(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path), "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", TERMINAL, str(file)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "TTFT" in done.stdout and "<iframe" not in done.stdout


def test_the_example_has_no_outputs() -> None:
    cells = json.loads(EXAMPLE.read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.validate(notebook)
nbformat.write(notebook, sys.argv[2] + "/done.ipynb")
page, _ = HTMLExporter().from_notebook_node(notebook)
open(sys.argv[2] + "/done.html", "w", encoding="utf-8").write(page)
"""


@pytest.mark.slow
def test_the_example_runs_and_is_whole_when_converted(tmp_path: Path) -> None:
    for needed in ("ipykernel", "nbclient", "nbconvert", "torch"):
        pytest.importorskip(needed)
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    environment = {
        **os.environ,
        "JUPYTER_PATH": str(tmp_path / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "OMP_NUM_THREADS": "1",
    }
    program = [sys.executable, "-c", EXECUTE, str(EXAMPLE), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    notebook = json.loads((tmp_path / "done.ipynb").read_text("utf-8"))
    outputs = [one for cell in notebook["cells"] if cell["cell_type"] == "code" for one in cell["outputs"]]
    values = [one["data"] for one in outputs if one["output_type"] == "execute_result" and "text/html" in one["data"]]
    assert len(values) == 4  # tape, explanation, law, comparison
    pages = [Frames("".join(one["text/html"])).frames[0]["srcdoc"] for one in values]
    assert all("".join(one["text/plain"]).strip() for one in values)
    converted = Frames((tmp_path / "done.html").read_text("utf-8")).frames
    assert [frame["srcdoc"] for frame in converted] == pages
    script = (ROOT / "src" / "tokentape" / "views" / "static" / "view.js").read_text("utf-8")
    assert [f"<script>{script}</script>" in page for page in pages] == [True, False, True, True]
