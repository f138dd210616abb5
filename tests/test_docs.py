"""What the docs name is there."""

import ast
import pathlib
import re

import pytest

_CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
_PAGES = [*sorted(_CHECKOUT.glob("*.md")), *sorted((_CHECKOUT / "docs").rglob("*.md"))]


def _named_tests(text):
    """(file, test, whether said to be slow) of `file::test`, and of `::test` of the same file."""
    file = None
    for name, test, slow in re.findall(r"`([\w/.]*)::(\w+)`( \(slow\))?", text):
        file = name or file
        yield file, test, bool(slow)


def _source(path):
    """Module and body of each test, with what is above its def."""
    text = (_CHECKOUT / path).read_text()
    all_slow = re.search(r"^pytestmark = .*pytest\.mark\.slow", text, re.MULTILINE) is not None
    blocks = re.findall(r"((?:^ *@.*\n(?:^ .*\n|^\)\n)*)*)^ *def (test_\w+)", text, re.MULTILINE)
    return {name: all_slow or "@pytest.mark.slow" in above for above, name in blocks}


def test_every_fault_names_tests_that_exist_and_says_which_are_slow():
    named = list(_named_tests((_CHECKOUT / "docs" / "faults.md").read_text()))
    assert len(named) > 60
    for file, test, said_slow in named:
        assert _source(file).get(test) is said_slow, f"{file}::{test}"


def test_every_letter_of_the_table_of_faults_is_explained():
    text = (_CHECKOUT / "docs" / "faults.md").read_text()
    rows = re.findall(r"^\| (\d+) \| [^|]+ \|(.*)\|$", text, re.MULTILINE)
    assert [int(number) for number, _ in rows][:20] == [*range(1, 21)]
    assert len(rows) == len({number for number, _ in rows}) > 20
    for number, cells in rows:
        used = set(re.findall(r"\b([a-i])\b", cells))
        legend = text.partition(f"\n**{number}** ")[2].partition("\n\n")[0]
        explained = set(re.findall(r"(?:^|\n)([a-i]) `", legend))
        assert used == explained, f"row {number}: {sorted(used ^ explained)}"
        assert len(cells.split("|")) == 6


def _definitions(path):
    """Names of functions and classes at the top of a module."""
    tree = ast.parse((_CHECKOUT / path).read_text())
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def test_every_equation_names_a_function_and_tests_that_exist():
    text = (_CHECKOUT / "docs" / "equations.md").read_text()
    rows = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    rows = [row.replace("\\|", "") for row in rows if "`" in row]
    assert len(rows) > 50
    for row in rows:
        *_, functions, tests = row.split("|")
        ((path, function, _),) = _named_tests(functions)
        assert function in _definitions(path), f"{path}::{function}"
        assert list(_named_tests(tests)), row
    for path, name, _ in _named_tests(text):
        assert name in (_source(path) if path.startswith("tests/") else _definitions(path)), name


def test_every_function_of_the_mathematics_has_its_equation():
    named = {
        (f, name) for f, name, _ in _named_tests((_CHECKOUT / "docs/equations.md").read_text())
    }
    for path in sorted((_CHECKOUT / "tfdrl" / "ops").glob("*.py")):
        tree = ast.parse(path.read_text())
        public = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"]
        missing = [n for n in public if (str(path.relative_to(_CHECKOUT)), n) not in named]
        assert not missing, f"{path.name}: {missing}"


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    files = r"`((?:tests|tfdrl|docker|docs|gin|binaries)/[\w/.-]+\.\w+)`"
    for name in re.findall(files, page.read_text()):
        assert (_CHECKOUT / name).exists(), name


def test_every_source_of_the_comparison_with_others_is_listed_and_used():
    table, _, sources = (_CHECKOUT / "docs/choosing.md").read_text().partition("## Sources")
    cited = re.findall(r"\[(\d+(?:, \d+)*)\]", table)
    used = {number for numbers in cited for number in numbers.split(", ")}
    assert used == set(re.findall(r"^\| (\d+) \|", sources, re.MULTILINE)) != set()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert {len(row.split("|")) for row in rows} == {12}
