"""The glossary explains the words of the tables and of the help texts, in both languages."""

import argparse
import re

import pytest
from package_copy import ROOT

from vggt_quant.cli.main import parser
from vggt_quant.evaluation import metrics
from vggt_quant.report import comparison_table

OBVIOUS = {"FOLDER", "FILE", "N", "N,...", "GIB,...", "MB", "HEIGHTxWIDTH", "SCENE", "OWNER/NAME", "NAME_OR_FOLDER"}
"""Placeholders that say themselves what they stand for; so do names of files."""


@pytest.fixture(params=["GLOSSARY.md", "GLOSSARY.zh-CN.md"])
def explained(request):
    """The words in bold at the start of a row."""
    rows = re.findall(r"^\| (.*?) \| ", (ROOT / "docs" / request.param).read_text(), re.M)
    return {word for row in rows for word in re.findall(r"\*\*(.+?)\*\*", row)}


def placeholders():
    top = parser()
    commands = next(action for action in top._actions if isinstance(action, argparse._SubParsersAction)).choices
    actions = [action for command in commands.values() for action in command._actions]
    values = [action for action in actions if action.option_strings and action.nargs != 0 and not action.choices]
    return {str(action.metavar or action.dest.upper()) for action in values}


def test_every_column_of_the_summary_is_explained(explained):
    columns = [*comparison_table.COLUMNS, *comparison_table.LAST_COLUMNS]
    titles = {f"{first} {second}".replace("latency ms ", "latency ms, ") for first, second, _ in columns}
    shown = metrics.described()
    titles |= {f"{one.title} {one.unit}".strip() for one in shown["deviation"].values() if one.column is not None}
    titles |= {one.title for one in shown["truth"].values() if one.column is not None}
    assert len(titles) > 12
    assert not titles - explained


def test_every_placeholder_of_a_flag_is_explained_or_obvious(explained):
    words = {word for word in placeholders() if not word.endswith(("images.json", "reference.json"))}
    assert {"MODEL", "NAMES", "FILE.json"} <= words
    assert not words - OBVIOUS - explained


def test_both_glossaries_explain_the_same_words():
    english, chinese = ((ROOT / "docs" / name).read_text() for name in ("GLOSSARY.md", "GLOSSARY.zh-CN.md"))
    words = [re.findall(r"\*\*(.+?)\*\*", text) for text in (english, chinese)]
    assert words[0] == words[1]
