"""The marks that keep lines and tables readable, and the labels of the references."""

import api_pages
import layout
import pytest
import references
import results as results_extension
from book_pages import ROOT
from docutils import nodes
from page_tables import row, table
from pybtex.database import parse_file
from sphinx.application import Sphinx

from mcliplib import results
from mcliplib.layers.fold import Affine

BOOK = Sphinx.__new__(Sphinx)  # the steps read nothing of it


def test_a_formula_keeps_the_marks_around_it() -> None:
    formula = nodes.math("", "i")
    line = nodes.paragraph("", "", nodes.Text("What is it (of "), formula, nodes.Text("?) Not much."))
    layout.keep_together(BOOK, line, "page")
    assert line.astext() == "What is it (of i?) Not much."
    (kept,) = line.findall(nodes.inline)
    assert kept["classes"] == ["together"]
    assert kept.astext() == "i?)"


@pytest.mark.parametrize(("before", "after", "kept"), [("(", ", ", "(i,"), ("", "-th", "i-"), ("“", "”.", "“i”.")])
def test_the_marks_before_a_formula_are_kept_too(before: str, after: str, kept: str) -> None:
    line = nodes.paragraph("", "", nodes.Text(before), nodes.math("", "i"), nodes.Text(after))
    layout.keep_together(BOOK, line, "page")
    assert next(iter(line.findall(nodes.inline))).astext() == kept
    assert line.astext() == f"{before}i{after}"


def test_a_formula_among_words_stays_as_it_is() -> None:
    line = nodes.paragraph("", "", nodes.Text("The "), nodes.math("", "i"), nodes.Text(" here."))
    layout.keep_together(BOOK, line, "page")
    assert not list(line.findall(nodes.inline))


def test_the_cells_of_a_stacked_table_name_their_columns() -> None:
    cells = [[nodes.Text(text)] for text in ("S0", "256", "plain")]
    made = table(("model", "side", "pixels"), [row(*cells)], "stacked")
    layout.name_cells(BOOK, nodes.section("", made), "page")
    body = next(iter(made.findall(nodes.tbody)))
    assert [entry.astext() for entry in body[0]] == ["S0", "side: 256", "pixels: plain"]


@pytest.mark.parametrize(
    ("text", "marked"),
    [("a    1\nbcd  2", True), ("a    1\nbcd 2", False), ("  an indent\n  and another", False)],
)
def test_printed_tables_are_marked(text: str, marked: bool) -> None:
    block = nodes.literal_block(text, text, classes=["output", "stream"])
    layout.mark_columns(BOOK, nodes.section("", block), "page")
    assert ("in-columns" in block["classes"]) == marked


def test_no_link_begins_with_a_space() -> None:
    line = nodes.paragraph("", "Solution to", nodes.reference("", " Exercise 1", refuri="#x"))
    layout.move_spaces(BOOK, line, "page")
    assert line.astext() == "Solution to Exercise 1"
    assert next(iter(line.findall(nodes.reference))).astext() == "Exercise 1"


def test_a_command_is_shown_whole_and_an_option_keeps_its_value() -> None:
    for name in results.names():
        command = results.load(name)["command"]
        assert results_extension.command_block(command).astext().count(" ") >= command.count(" ")
    shown = results_extension.command_block("run a --output s3://x & --fast -n 3").astext()
    for part in ("run", "a", "--output s3://x", "&amp;", "--fast", "-n 3"):
        assert f'<span class="together">{part}</span>' in shown


def test_a_path_of_keys_may_end_after_its_marks() -> None:
    made = results_extension.breakable("mean.emoji-seen/r_1")
    assert [node.astext() for node in made] == ["mean.", "<wbr>", "emoji-seen/", "<wbr>", "r_", "<wbr>", "1"]


def test_the_references_have_the_labels_that_the_text_cites() -> None:
    entries = parse_file(ROOT / "book/references.bib").entries
    labels = list(references.AuthorYearLabels().format_labels(list(entries.values())))
    assert "Vasu et al., 2024" in labels
    assert "Tan and Le, 2019" in labels
    assert "van den Oord et al., 2018" in labels
    assert len(set(labels)) == len(labels)


def test_the_fields_of_named_tuples_need_no_docstring_of_pythons() -> None:
    assert api_pages.skip_alias(BOOK, "class", "kernel", Affine.kernel, False, None)
    assert api_pages.skip_alias(BOOK, "class", "scaled", Affine.scaled, False, None) is None
