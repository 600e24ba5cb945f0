"""The section of the report about generators of conformers, and what of it stands elsewhere."""

import html.parser
import json

import pytest

from conformer_study import GENERATORS, benchmark_in, section, write_mixed
from mdlatent import config
from mdlatent.report import conformers, methods, page, study, summary


class Section(html.parser.HTMLParser):
    """The text of the section, its tables cell by cell."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.rows = "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study's folder with nothing but a benchmark of conformers."""
    place = tmp_path_factory.mktemp("study")
    benchmark_in(place / "conformers", write_mixed(place / "mine.sdf"), section(seeds=[0, 1]))
    return place


@pytest.fixture(scope="module")
def found(folder):
    return study.read_conformers(folder)


@pytest.fixture(scope="module")
def shown(found):
    return Section(page.fill(page.template("conformers.html"), conformers.parts(found)))


def test_the_table_has_every_generator_with_its_difference(shown):
    rows = shown.rows
    assert rows[0][:3] == ["Generator", "AMR, recall Å", "Difference to etkdg Å, 95 % interval"]
    assert "AMR, precision Å" in rows[0]
    assert [row[0] for row in rows[1:3]] == ["etkdgbaseline", "etkdg_mmff"]
    assert rows[1][2] == "" and " to " in rows[2][2]
    assert len(rows[1]) == len(rows[0]) == len(rows[2])


def test_failures_and_records_left_out_are_named(shown):
    for name in ("record 4", "disconnected", "large", "boron", "flat", "open"):
        assert [row for row in shown.rows if row[0] == name and len(row[1]) > 20]
    assert "No generator failed for any molecule" in shown.text
    assert "6 records left out" in shown.text


def test_what_the_references_are_is_said(shown, found):
    assert "made by a generator of conformers" in shown.text
    assert conformers.notice(found | {"made_by": "experiment"}) == ""
    assert "alone is shown" not in shown.text
    assert "3 molecules with one reference only" in shown.text
    alone = found | {"about": found["about"] | {"with_precision": False}}
    assert "alone is shown" in conformers.note(alone)


def test_failures_are_rows_and_their_text_is_no_markup():
    entry = {"molecule": "<b>x</b>", "generator": "etkdg", "seeds": [0, 2], "reason": "not done within 60 s"}
    shown = conformers.failures([entry] * (conformers.MOST_LISTED + 7), 60.0)
    assert "<td>&lt;b&gt;x&lt;/b&gt;</td><td>etkdg</td><td>0, 2</td><td>not done within 60 s</td>" in shown
    assert "7 more: conformers/conformers.json" in shown


def test_records_are_as_those_of_other_stages(found):
    own = summary.describe({"study": "s"}, found["records"])["metrics"]
    assert {record["model"] for record in own} == set(GENERATORS)
    metrics = {record["metric"] for record in own}
    assert {"amr_recall", "amr_precision", "coverage_recall_0.75", "stereo_kept", "seconds_per_conformer"} <= metrics
    assert {"energy_above_reference", "relaxed_energy_above_reference", "failures"} <= metrics
    for record in own:
        assert record["stage"] == "conformers" and {"seed", "dim", "value", "unit"} <= set(record)
        if record["metric"].startswith("coverage") or record["metric"] == "stereo_kept":
            assert 0 <= record["value"] <= 1
    json.dumps(own, allow_nan=False)


def test_methods_are_cited_where_they_were_used():
    values = config.read(config.SCHEMA.parents[2] / "config.yaml")
    with_them, without = (
        [text for _, text, _ in methods.references(config.resolve(one), [])]
        for one in (values, {key: value for key, value in values.items() if key != "conformers"})
    )
    assert any("Riniker" in text for text in with_them) and not any("Riniker" in text for text in without)
