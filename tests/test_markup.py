"""Names that users give are shown as they are in every page, table and figure."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from tests.small import ACCURACY, few_digits, trained

from boundnas import SearchSettings, search
from boundnas.deploy.card import card
from boundnas.report import draw
from boundnas.report.comparison import Axis
from boundnas.report.markup import markdown
from boundnas.task import Classification

NASTY = [
    "a, b", "<b>bold</b>", "<script>alert(1)</script>", "a|b", "`code`", "```", "$x^2$", "$", "_a_",
    "**a**", "[a](b)", " blank ", "con", "\u05d0\u05d1", "\U0001f431", "&amp;", "~~a~~", "a\\",
    '"', "'", "# a", "- a",
]  # fmt: skip
MARKS = re.compile(r"(?<!\\)(?:\\\\)*[`*$|~\[\]]|<")


@pytest.mark.parametrize("text", NASTY)
def test_no_text_is_markup_in_markdown(text):
    found = markdown(text)
    assert not MARKS.search(found)
    unescaped = re.sub(r"\\(.)", r"\1", found)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        unescaped = unescaped.replace(entity, character)
    assert unescaped == text
    assert "\n" not in markdown(f"{text}\n| 99 % |")


@pytest.mark.parametrize("text", ["fashion_mnist", "learn both", "width 0.25", "a-b.c (2), d"])
def test_plain_text_stays_plain(text):
    assert markdown(text) == text


@pytest.fixture(scope="module")
def network():
    front = search(trained(), SearchSettings(initial=2, rounds=0, calibration_images=64))
    return (*front.networks, *front.outside)[0]


def test_a_card_gives_classes_as_json_and_names_as_text(network):
    classes = tuple([*NASTY, *map(str, range(10))][:10])
    for name, names in (("<i>|$x$", classes), ("digits", tuple(NASTY[10:20]))):
        text = card(network, replace(few_digits(), name=name, classes=names), Classification(), {})
        (held,) = re.findall(r"\n\n    (.*)\n\n", text)  # indented, so shown as it is
        assert json.loads(held) == list(names)
        assert text.splitlines()[0].endswith(f" for {markdown(name)}")


@pytest.mark.parametrize("label", [*NASTY, "$\\frac{1}$"])
def test_figures_show_labels_as_they_are(label):
    rows = [(1e6, 0.5, 0.5), (2e6, 0.75, 0.75)]
    svg = draw.fronts({f"folder {label}": [rows]}, 1e6, 2e6, ACCURACY, Axis.of("macs", 2e6))
    texts = "".join(ElementTree.fromstring(svg[svg.index("<svg") :]).itertext())
    assert f"folder {label} (1 seeds)" in texts
