"""What nbval does not see: that every committed notebook was executed, is whole, short, and shows no private path."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from helpers import paths

NOTEBOOKS = sorted((paths.ROOT / "notebooks").glob("*.ipynb"))
README = paths.ROOT / "README.md"
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)|<(?:img|a)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")
# A folder of a machine, the real photos, or a file name of UTKFace (those that notebook 02 invents are of midnight).
PRIVATE = re.compile(
    r"(?<![\w.])/(?:home|root|work|Users|tmp|opt|usr|var|private)/|[A-Z]:\\|shared/data|_[01]_[0-4]_(?!\d{8}000000)\d{17}"
)

SOLUTIONS = paths.ROOT / "notebooks" / "10_solutions.ipynb"

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_lesson = pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p != SOLUTIONS], ids=lambda path: path.stem)


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def prose(path):
    return "\n\n".join(cell.source for cell in cells(path, "markdown"))


def texts(cell):
    """Yield what the outputs of a code cell say; pictures are left out."""
    for output in cell.outputs:
        yield output.get("text", "")
        yield from output.get("traceback", [])
        yield from (str(data) for kind, data in output.get("data", {}).items() if not kind.startswith("image/"))


def says(text):
    """Return whether a stored output says something: a figure's repr, an object's address do not."""
    return bool(text.strip()) and not re.match(r"<[\w. ]+( size| object| at |\()", text)


def broken_links(text, folder):
    """Return the relative links and pictures in `text` that lead nowhere from `folder`."""
    targets = (a or b for a, b in LINK.findall(text))
    relative = (t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:", t))
    return [t for t in relative if t and not (folder / t).exists()]


def test_the_series_is_numbered_without_a_gap():
    assert [path.stem[:3] for path in NOTEBOOKS] == [f"{i:02d}_" for i in range(1, len(NOTEBOOKS) + 1)]
    assert len(NOTEBOOKS) == 10 and NOTEBOOKS[-1] == SOLUTIONS


@every_notebook
def test_every_cell_was_executed_in_order(path):
    counts = [cell.execution_count for cell in cells(path, "code")]
    assert counts and counts == list(range(1, len(counts) + 1)), "execute it from a fresh kernel: make refresh"


@every_notebook
def test_half_of_the_cells_are_compared(path):
    """By nbval, with what is stored: it is green over a cell without output or with a tag."""
    every = cells(path, "code")
    compared = [cell for cell in every if not cell.metadata.get("tags") and any(map(says, texts(cell)))]
    assert 2 * len(compared) >= len(every), f"the output of {len(compared)} of {len(every)} code cells is compared"
    skipped = [cell.execution_count for cell in every if "nbval-skip" in cell.metadata.get("tags", [])]
    assert not skipped, f"cells {skipped} are not run by the tests"


@every_notebook
def test_no_output_is_an_error_or_shows_a_private_path(path):
    for cell in cells(path, "code"):
        where = f"output of cell [{cell.execution_count}]"
        assert not any(output.output_type == "error" for output in cell.outputs), where
        found = next(filter(None, map(PRIVATE.search, texts(cell))), None)
        assert not found, f"{where}: …{found.string[max(found.start() - 40, 0) : found.end() + 40]}…"


@every_notebook
def test_cells_are_short_and_the_file_small(path):
    long = {cell.execution_count: len(cell.source.splitlines()) for cell in cells(path, "code")}
    assert not {count: lines for count, lines in long.items() if lines > 25}, "lines of code cells over 25"
    assert path.stat().st_size < 1_000_000


@every_notebook
def test_the_skeleton_is_there(path):
    first, code = cells(path, "markdown")[0].source, cells(path, "code")
    assert re.match(rf"# {path.stem[:2]} · \S", first)
    for part in ("What you will learn", r"Takes\W+about", "Needs", r"\(\.\./README\.md\)"):
        assert re.search(part, first), f"the first cell lacks {part!r}"
    headings = re.findall(r"^## (.+)$", prose(path), re.MULTILINE)
    assert headings[0].startswith("1 ")
    assert headings[-2:] == ["What to remember", "What we found"] or path != SOLUTIONS
    assert headings[-3:] == ["What to remember", "What we found", "Exercises"] or path == SOLUTIONS
    assert "Markdown(" in code[-1].source, "the findings are not computed in the last code cell"


@every_lesson
def test_one_cell_invites_to_try_another_number(path):
    assert len([cell for cell in cells(path, "code") if cell.source.startswith("# Try it: ")]) == 1


@every_lesson
def test_every_exercise_says_what_to_find_and_has_a_solution(path):
    exercises = re.split(r"^\d\. ", cells(path, "markdown")[-1].source.split("Solutions: ")[0], flags=re.MULTILINE)[1:]
    assert len(exercises) >= 2 and all("ou should find" in " ".join(one.split()) for one in exercises)
    solved = re.findall(rf"^\*\*{int(path.stem[:2])}\.(\d) ", prose(SOLUTIONS), re.MULTILINE)
    assert solved == [str(i) for i in range(1, len(exercises) + 1)]


@every_notebook
def test_links_resolve(path):
    assert not broken_links(prose(path), path.parent)


@pytest.mark.skipif(not README.exists(), reason="README.md is not written yet")
@pytest.mark.parametrize(
    "name",
    ["README.md", "CONTRIBUTING.md", "GLOSSARY.md", "commands/README.md", "data/README.md", "data/YOUR_PHOTOS.md"]
    + ["data/models/README.md", "tests/bench/README.md"],
)
def test_links_and_pictures_of_the_pages_resolve(name):
    text = Path(paths.ROOT / name).read_text(encoding="utf-8")
    assert not broken_links(text, (paths.ROOT / name).parent)
    assert not PRIVATE.search(text.replace("../shared/data", ""))  # the real photos are named there, none is shown


def test_what_says_something_is_told_from_what_does_not():
    assert says("MAE 3.2") and says("<3 years") and says("<table>\n<tr>")
    for silent in ("", " \n", "<Figure size 640x176 with 4 Axes>", "<IPython.core.display.Markdown object>"):
        assert not says(silent)


def test_helpers_are_thin():
    """A reader understands each in two minutes. The training loop alone is one long function."""
    files = sorted((paths.ROOT / "helpers").glob("*.py"))
    sources = {file.name: file.read_text(encoding="utf-8") for file in files}
    # The aim is about 1,500. What the table of kinds asks for has added 220, so this holds the line and no more.
    assert sum(len(source.splitlines()) for source in sources.values()) <= 2_310
    functions = {
        (name, node.name): node.end_lineno - node.lineno + 1
        for name, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    }
    assert {where: lines for where, lines in functions.items() if lines > 40}.keys() <= {("training.py", "fit")}


def test_a_broken_link_is_found(tmp_path):
    text = '[a](gone.md#part) ![b](gone.png "title") <img width="9" src="gone.jpg"> [c](https://example.org) [d](#here)'
    assert broken_links(text, tmp_path) == ["gone.md", "gone.png", "gone.jpg"]
