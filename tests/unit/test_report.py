"""The report: one self-contained page, the same for the same results, and summary.json."""

import html.parser
import json
import re

import numpy as np
import pytest

from conformer_study import with_conformers
from mdlatent import config
from mdlatent.errors import ConfigError, DataError
from mdlatent.report import command, figures, page, structures, study, summary, tables
from report_study import LENGTHS, MODELS, small_study  # noqa: F401  (a fixture)


class Page(html.parser.HTMLParser):
    """Elements with their attributes, and the text of script and other elements by id."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: dict[str, str] = {}
        self._id = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._id = dict(attrs).get("id")

    def handle_data(self, data):
        if self._id:
            self.texts[self._id] = self.texts.get(self._id, "") + data


def values(packed: dict) -> np.ndarray:
    """What the page's script makes of a packed array."""
    import base64

    codes = np.frombuffer(base64.b64decode(packed["d"]), np.dtype(packed["t"]).newbyteorder("<"))
    return packed["lo"] + packed["step"] * codes if "step" in packed else codes


@pytest.fixture(scope="module")
def text(small_study):  # noqa: F811
    return small_study.page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data(text):
    return json.loads(Page(text).texts["data"])


def test_nothing_is_loaded_from_elsewhere(text):
    for tag, attributes in Page(text).elements:
        for name in ("src", "srcset", "data", "poster", "action", "background", "code"):
            assert name not in attributes, (tag, attributes)
        target = attributes.get("href", "")
        if tag == "a":
            assert target.startswith(("#", "https://doi.org/")), target
        else:
            assert not re.match(r"\w+:", target) or target.startswith("data:"), (tag, target)
    assert "default-src 'none'" in text
    assert "@import" not in text[: text.index("</style>")]
    assert "url(" not in text[: text.index("</style>")]
    assert len(text.encode()) < 9e6


def test_every_model_and_seed_is_there(data, small_study):  # noqa: F811
    assert [run["model"] for run in data["runs"]] == list(MODELS)
    assert [run["dim"] for run in data["runs"]] == [2, 1, 3]
    assert data["frames"]["n"] == data["frames"]["total"] == sum(LENGTHS.values())
    assert data["frames"]["simulations"] == list(LENGTHS)


def test_the_map_shows_the_latent(data, small_study):  # noqa: F811
    import pandas

    for run in data["runs"]:
        folder = small_study.folder / "latent" / run["model"] / "seed0"
        table = pandas.concat([pandas.read_parquet(folder / f"{name}.parquet") for name in LENGTHS])
        labels = pandas.read_parquet(small_study.folder / "clusters" / run["model"] / "seed0" / "labels.parquet")
        for name in run["axes"]:
            assert np.abs(values(run["z"][name]) - table[name]).max() <= np.ptp(table[name]) / 65535
        assert (values(run["state"]) == labels["label"]).all()
        error = values(run["error_nm"]) - table["reconstruction_rmse_nm"]
        assert np.abs(error).max() < 1e-4
        for state in run["states"]:
            at = (table["simulation"] == state["medoid_simulation"]) & (table["frame"] == state["medoid_frame"])
            np.testing.assert_allclose(state["medoid"], table.loc[at, run["axes"]].to_numpy()[0], rtol=1e-5)
    assert (values(data["frames"]["frame"]) == table["frame"]).all()
    assert (values(data["frames"]["time_ps"]) == table["time_ps"]).all()
    assert [data["frames"]["splits"][k] for k in values(data["frames"]["split"])] == table["split"].tolist()


def test_mean_distances_are_those_of_the_frames(data, small_study):  # noqa: F811
    from mdlatent import distances
    from mdlatent.frames import FrameStore

    with FrameStore(small_study.folder / "frames" / "index.json") as store:
        packed = distances.packed(store.read(0, store.n_frames))
    np.testing.assert_allclose(values(data["matrices"]["whole"]), packed.mean(0), atol=1e-4)
    for run, means in zip(data["runs"], data["matrices"]["runs"], strict=True):
        for state, mean in enumerate(means):
            expected = packed[values(run["state"]) == state].mean(0)
            np.testing.assert_allclose(values(mean), expected, atol=1e-4)


def test_same_results_same_page(small_study, tmp_path, text):  # noqa: F811
    again = small_study.copy(tmp_path / "small")
    assert again.write() == text
    assert again.summary.read_bytes() == small_study.summary.read_bytes()


def test_timings_come_from_the_benchmark_files(small_study, tmp_path, text):  # noqa: F811
    row = "<td class=n>1</td><td class=n>12.5</td><td class=n>12.5</td><td class=n>11.8</td><td class=n>377</td>"
    assert f"<tr><td>cluster</td>{row}</tr>" in text
    without = small_study.copy(tmp_path / "small")
    (without.folder / "benchmarks/cluster/conv2d-d2.seed0.tsv").unlink()
    assert "No benchmark files were found" in without.write()


def test_fewer_points_are_drawn_and_counted(small_study, tmp_path):  # noqa: F811
    few = small_study.copy(tmp_path / "small")
    data = json.loads(Page(few.write(max_points=100)).texts["data"])
    assert data["frames"]["n"] == 100
    assert data["frames"]["total"] == sum(LENGTHS.values())
    assert all(len(values(run["state"])) == 100 for run in data["runs"])


def test_text_of_the_user_is_not_markup(small_study, tmp_path):  # noqa: F811
    evil = small_study.copy(tmp_path / "small")
    sign = "</script><img src=x onerror=alert(1)>"
    for path in evil.folder.rglob("*.source.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"uri": sign, "citation": sign, "licence": sign}))
    path = evil.folder / "clusters/conv2d-d2/seed0/cluster.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"message": sign}))
    text = evil.write()
    assert "img" not in [tag for tag, _ in Page(text).elements]
    assert sign not in text
    assert json.loads(Page(text).texts["data"])["runs"][0]["message"] == sign


def test_summary_has_the_schema(small_study):  # noqa: F811
    written = json.loads(small_study.summary.read_text(), parse_constant=pytest.fail)  # no NaN
    assert list(written) == ["study", "commit", "config_sha256", "versions", "metrics"]
    assert written["study"] == "small"
    assert re.fullmatch(r"[0-9a-f]{64}", written["config_sha256"])
    assert written["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-modified)?", written["commit"])
    assert {"mdlatent", "python", "numpy", "torch", "mdtraj", "hdbscan"} <= set(written["versions"])
    for record in written["metrics"]:
        assert {"stage", "model", "seed", "dim", "metric", "value", "unit"} <= set(record)
        assert isinstance(record["value"], int | float)
    assert {record["model"] for record in written["metrics"]} == set(MODELS)


def test_values_that_are_no_numbers_are_left_out():
    record = {"stage": "evaluate", "model": "m", "seed": 0, "dim": 2, "metric": "vamp2", "unit": "1"}
    found = summary.describe({"study": "s"}, [record | {"value": float("nan")}, record | {"value": 1.5}])
    assert [entry["value"] for entry in found["metrics"]] == [1.5]


NEEDED = [
    "frames/index.json",
    *(f"models/conv2d-d2/seed0/{name}" for name in ("history.csv", "config.yaml")),
    "latent/conv2d-d2/seed0/first.parquet",
    *(
        f"clusters/conv2d-d2/seed0/{name}"
        for name in ("labels.parquet", "cluster.json", "summary.csv", "transitions.csv")
    ),
    "clusters/conv2d-d2/seed0/representatives/cluster_0.pdb",
    "evaluation/conv2d-d2/seed0.json",
]


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_file_is_named(small_study, tmp_path, name):  # noqa: F811
    broken = small_study.copy(tmp_path / "small")
    broken.page.unlink()
    (broken.folder / name).unlink()
    with pytest.raises(DataError, match=re.escape(name.rpartition("/")[2])):
        broken.write()
    assert not broken.page.exists()


def test_conformers_stand_in_a_section_of_their_own(small_study, tmp_path, text):  # noqa: F811
    found = with_conformers(small_study, tmp_path)
    written = Page(found.write())
    assert ("section", {"id": "conformers"}) in written.elements
    assert json.loads(written.texts["data"])["conformers"]["generators"] == ["etkdg", "etkdg_mmff"]
    records = json.loads(found.summary.read_text())["metrics"]
    assert {record["model"] for record in records} == {*MODELS, "etkdg", "etkdg_mmff"}
    models = json.loads(written.texts["data"])["comparison"]
    assert models == json.loads(Page(text).texts["data"])["comparison"]
    assert ("section", {"id": "conformers"}) not in Page(text).elements
    (found.folder / "conformers" / "conformers.json").unlink()
    with pytest.raises(DataError, match=r"conformers.json: .*conformers.collect"):
        found.write()


def test_models_of_another_form_are_refused():
    with pytest.raises(ConfigError, match="--models"):
        command.runs_wanted('["conv2d"]', {})


def test_secrets_do_not_reach_the_page():
    shown = command.public({"simulations": [{"topology": "https://me:secret@127.0.0.1/a.pdb"}]})
    assert "secret" not in json.dumps(shown)


def test_thinning_is_even():
    rows = figures.thinned(1000, 300)
    assert len(rows) == 300 and rows[0] == 0 and set(np.diff(rows)) == {3, 4}
    assert (figures.thinned(10, 300) == np.arange(10)).all()


def test_quantized_numbers_come_back():
    numbers = np.random.default_rng(0).normal(size=1000)
    packed = figures.quantized(numbers)
    assert np.abs(values(packed) - numbers).max() <= packed["step"] / 2 * (1 + 1e-9)
    assert (values(figures.quantized(np.full(5, 3.25))) == 3.25).all()
    assert len(values(figures.quantized(np.empty(0)))) == 0


def unpacked(packed: dict, entry: dict) -> str:
    """The PDB file as the page's script writes it."""
    template = packed["templates"][entry["template"]].split("\n")
    xyz = iter(values(entry["xyz"]))
    lines = list(entry["head"])
    for model in entry["models"]:
        lines.append(model)
        for line in template:
            if line.startswith(structures.ATOM):
                coordinates = "".join(f"{next(xyz) / 1000:8.3f}" for _ in range(3))
                line = line[:30] + coordinates + line[30:]
            lines.append(line)
    return "\n".join(lines + entry["tail"]) + "\n"


def test_structures_come_back_from_the_page(small_study, data):  # noqa: F811
    assert not data["structures"]["reduced"]
    assert len(data["structures"]["templates"]) == 1  # shared by all states
    for name, entry in zip(data["files"], data["structures"]["entries"], strict=True):
        original = (small_study.folder / name).read_text()
        assert unpacked(data["structures"], entry).replace("-0.000", " 0.000") == original.replace("-0.000", " 0.000")


def test_large_structures_are_reduced(small_study, data):  # noqa: F811
    paths = [small_study.folder / name for name in data["files"]]
    whole = structures.packed(paths)
    budget = sum(len(entry["xyz"]["d"]) for entry in whole["entries"]) // 2
    fewer = structures.packed(paths, budget)
    assert fewer["reduced"] and sum(len(entry["xyz"]["d"]) for entry in fewer["entries"]) <= budget * 1.01
    none = structures.packed(paths, 100)
    assert none["entries"] == [None] * len(paths)
    assert none["reduced"] == structures.LEVELS[-1]


def test_models_that_differ_in_atoms_are_not_packed():
    atom = "ATOM      1  CA  ALA A   1       0.000   0.000   0.000  1.00  0.00           C  "
    text = f"MODEL        1\n{atom}\nENDMDL\nMODEL        2\n{atom}\n{atom}\nENDMDL\nEND\n"
    assert structures.parse(text) is None
    assert structures.parse("END\n") is None


def test_numbers_in_tables():
    assert tables.show(1234567, 0) == "1\u202f234\u202f567"
    assert tables.show(-0.5, 1) == "−0.5"
    assert tables.show(None, 2) == "–"
    assert tables.mean_and_spread([1.0, 3.0], 1, 1).startswith("2.0 ")
    assert "1.4" in tables.mean_and_spread([1.0, 3.0], 1, 1)
    assert tables.mean_and_spread([2.0], 1, 1) == "2.0"
    assert tables.size(18_636_548) == "18.6 MB"


def test_dois_are_links_and_the_rest_is_text():
    shown = tables.linked("A & B, doi:10.1021/jp0761665; <b>")
    assert '<a href="https://doi.org/10.1021/jp0761665"' in shown
    assert shown.startswith("A &amp; B, ") and shown.endswith("; &lt;b&gt;")


def test_metrics_without_words_get_a_column():
    record = {"stage": "evaluate", "model": "m", "seed": 0, "dim": 2, "unit": "nm"}
    shown = tables.headline([record | {"metric": "some_new_metric", "value": 0.125}], {"m": "conv2d"})
    assert "some new metric" in shown and "0.125" in shown


def test_every_reference_of_a_family_exists():
    from mdlatent.report import methods

    families = config.schema()["properties"]["models"]["items"]["properties"]["family"]["enum"]
    assert set(families) <= set(methods.FAMILIES)
    with_md = methods.references({"simulations": [{"simulate": "AAA"}]}, families)
    assert any("OpenMM" in text for _, text, _ in with_md)
    assert not any("OpenMM" in text for _, text, _ in methods.references({"simulations": [{}]}, families))


def test_filling_in_is_not_repeated():
    assert page.fill("a {{x}} b", {"x": "{{y}}", "y": "no"}) == "a {{y}} b"


def test_cells_of_tables():
    assert study.number("3") == 3 and isinstance(study.number("3"), int)
    assert study.number("3.0") == 3.0 and isinstance(study.number("3.0"), float)
    assert [study.number(cell) for cell in ("", "-", "nan", "NA")] == [None] * 4


def test_distances_to_a_reference_are_read_where_there_is_one(small_study, tmp_path):  # noqa: F811
    import pandas

    changed = small_study.copy(tmp_path / "small")
    path = changed.folder / "reference" / "first.parquet"
    path.parent.mkdir()
    n = LENGTHS["first"]
    pandas.DataFrame({"frame": range(n), "reference_rmsd_angstrom": np.arange(n) / 10}).to_parquet(path)
    with study.read(changed.folder, [("conv2d-d2", 0)]) as found:
        shown = figures.reference_distances(found, np.array([0, 7, n - 1, n]), ["first"])
        np.testing.assert_allclose(shown, [0, 0.7, (n - 1) / 10, np.nan])
        with pytest.raises(DataError, match="second"):
            figures.reference_distances(found, np.array([0]), ["second"])


def test_structures_are_seen_from_their_broad_side():
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(200, 3)) * [1, 10, 4]
    seen = Rotation.from_quat(structures.best_view(atoms)).apply(atoms)
    assert seen.std(0) == pytest.approx([4, 10, 1], rel=0.2)
    for matrix in Rotation.random(20, random_state=0).as_matrix():
        np.testing.assert_allclose(Rotation.from_quat(structures.quaternion(matrix)).as_matrix(), matrix, atol=1e-9)


def test_sources_of_simulations_run_here_are_listed(tmp_path):
    for name in ("topology.pdb", "part000.dcd"):
        path = tmp_path / "trajectories" / "run0" / f"{name}.source.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"file": name, "uri": "simulate:AAA", "simulation": {"length_ns": 1}}))
    found = study.read_sources(tmp_path)
    assert [(entry["simulation"], entry["file"]) for entry in found] == [
        ("run0", "topology.pdb"),
        ("run0", "part000.dcd"),
    ]
