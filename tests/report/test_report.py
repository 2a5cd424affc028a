"""The report of a benchmark and the viewer, in words, in numbers, and in a browser."""

import json
import math
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from killed import killed_while_writing
from report_data import MODALITIES, write_benchmark, write_nifti
from two_places import move_qform

from nnunetv2_rmr.cli import report as report_cli
from nnunetv2_rmr.cli import view as view_cli
from nnunetv2_rmr.evaluation.benchmark.fusion import summarise_fusion
from nnunetv2_rmr.evaluation.segmentation_metrics import label_names
from nnunetv2_rmr.files.atomic import write_json
from nnunetv2_rmr.files.refused import BadCaseError
from nnunetv2_rmr.report import verdict as words
from nnunetv2_rmr.report.charts import ticks
from nnunetv2_rmr.report.data import Benchmark, Difference
from nnunetv2_rmr.report.page import TEMPLATES
from nnunetv2_rmr.report.volumes import as_bytes, body_box, grey_range, label_bytes, load
from nnunetv2_rmr.report.write import write_report


@pytest.fixture(scope="module")
def two_models(tmp_path_factory) -> Path:
    folder = write_benchmark(tmp_path_factory.mktemp("report") / "out")
    write_report(folder)
    return folder


# ------------------------------------------------------------------------------------------------------------- words

BETTER = Difference(0.04, 0.01, 0.07, 12, 10, 2, 0.02)
WORSE = Difference(-0.04, -0.07, -0.01, 12, 2, 10, 0.02)
UNCLEAR = Difference(0.01, -0.02, 0.04, 12, 7, 5, 0.4)
SINGLE = Difference(0.03, 0.03, 0.03, 1, 1, 0, 1.0)
THREE = Difference(0.03, 0.01, 0.05, 3, 3, 0, 0.25)


@pytest.mark.parametrize(("difference", "expected"), [
    (BETTER, "better"), (WORSE, "worse"), (UNCLEAR, "no difference shown"), (SINGLE, "one case only"),
    (THREE, "too few cases"), (None, "not measured"),
    (Difference(0.0, 0.0, 0.0, 12, 0, 0, 1.0), "no difference shown"),
    (replace(BETTER, p=math.nan), "no difference shown"),  # of an older version's summary
    (replace(BETTER, p=0.06), "no difference shown"),  # whatever the interval says
    (replace(BETTER, low=-0.01), "better"), (replace(BETTER, low=math.nan, high=math.nan), "better"),
    (replace(UNCLEAR, n=5), "too few cases"),
    (Difference(math.nan, math.nan, math.nan, 0, 0, 0), "not measured")])
def test_finding(difference, expected):
    assert words.finding(difference, 0.95) == expected


def test_a_smaller_distance_is_better():
    assert words.finding(WORSE, 0.95, lower_is_better=True) == "better"
    assert words.finding(BETTER, 0.95, lower_is_better=True) == "worse"


def test_fewest_cases_are_those_whose_unanimity_is_rare():
    for confidence in (0.9, 0.95, 0.99):
        n = words.fewest_cases(confidence)
        assert 2 * 0.5 ** n <= 1 - confidence < 2 * 0.5 ** (n - 1)


def test_sentence_says_better_worse_and_not_shown():
    found = {"clean": UNCLEAR, "seen": BETTER, "unseen": WORSE, "missing": None}
    assert words.sentence("rmr", "vanilla", found, 0.95) == (
        "rmr: better than vanilla on trained kinds of degradation (Dice +0.040, 95 % interval +0.010 to +0.070); "
        "worse than vanilla on never trained kinds (−0.040, −0.070 to −0.010); "
        "no difference shown on clean images (+0.010, −0.020 to +0.040).")


def test_sentence_of_one_case_claims_nothing():
    text = words.sentence("rmr", "vanilla", {"clean": SINGLE, "seen": SINGLE}, 0.95)
    assert text == ("One case only, which shows nothing about rmr against vanilla: difference on clean images "
                    "(Dice +0.030) and trained kinds of degradation (+0.030).")


def test_sentence_of_few_cases_claims_nothing():
    text = words.sentence("rmr", "vanilla", {"clean": THREE}, 0.95)
    assert "too few cases to show a difference" in text and "better" not in text


def test_sentence_without_common_cases():
    assert "nothing can be compared" in words.sentence("rmr", "vanilla", {"clean": None}, 0.95)


def test_emphasis_leaves_names_escaped():
    assert words.emphasised("<i>: better than x") == "&lt;i&gt;: <b>better than</b> x"


@pytest.mark.parametrize(("value", "text"), [(0.0123, "+0.012"), (-0.5, "−0.500"), (-0.0001, "0.000"), (math.nan, "–")])
def test_signed(value, text):
    assert words.signed(value) == text


@pytest.mark.parametrize(("cases", "said"), [(1, "1 test case."), (3, "one is better in all 3 cases in 25 %"),
                                             (8, "rough intervals")])
def test_verdict_says_that_cases_are_few(tmp_path, cases, said):
    lines = words.verdict(Benchmark(write_benchmark(tmp_path, cases=cases, examples=False)))
    assert said in lines[-1] and ("better than" in lines[0]) == (cases > 5)


def test_a_summary_without_p_shows_no_difference_and_says_why(two_models, tmp_path):
    shutil.copytree(two_models, tmp_path / "out")
    assert "<b>better than" in (two_models / "report.html").read_text()
    assert "without p" not in (two_models / "report.html").read_text()
    summary = json.loads((two_models / "summary.json").read_text())
    for difference in summary["differences"]:
        del difference["p"]
    (tmp_path / "out" / "summary.json").write_text(json.dumps(summary))
    page = write_report(tmp_path / "out").read_text()
    assert "<b>better than" not in page and "▲" not in page and "▼" not in page
    assert "without p: no difference is called shown" in page


# ----------------------------------------------------------------------------------------------------------- numbers

def test_group_mean_of_a_case_is_over_its_conditions_without_nan(two_models):
    benchmark = Benchmark(two_models)
    rows = benchmark.results.query("model == 'rmr' and seen == 'unseen' and case == 'case_07'")
    assert rows["Dice"].isna().any()
    means = benchmark.case_means().query("model == 'rmr' and seen == 'unseen' and case == 'case_07'")["Dice"]
    assert means.item() == pytest.approx(np.nanmean(rows["Dice"]))


@pytest.mark.parametrize("name", ["summary.json", "results.csv", "cases.csv"])
def test_a_folder_without_benchmark_is_refused_by_file_name(two_models, tmp_path, name):
    shutil.copytree(two_models, tmp_path / "out")
    (tmp_path / "out" / name).write_text("{")
    (tmp_path / "out" / "report.html").write_text("old")
    with pytest.raises(BadCaseError, match=name.replace(".", r"\.")):
        write_report(tmp_path / "out")
    with pytest.raises(SystemExit) as stop:
        report_cli.main(["-o", str(tmp_path / "out")])
    assert name in str(stop.value.code) and (tmp_path / "out" / "report.html").read_text() == "old"


def test_ticks_are_round_and_inside():
    assert list(ticks(0, 1).values()) == ["0", "0.5", "1"]
    assert list(ticks(0.4, 1.0).values()) == ["0.4", "0.6", "0.8", "1"] and list(ticks(0.38, 0.41)) == [0.38, 0.39, 0.4,
                                                                                                       0.41]


def test_names_are_escaped():
    parts = TEMPLATES.get_template("parts.html").module
    options = parts.selector("label", "Label:", {'"><b>': "<i>&", "core": "core"})
    assert '<option value="&#34;&gt;&lt;b&gt;">&lt;i&gt;&amp;</option>' in options
    assert "</script><b>" not in parts.viewer({"facts": {"</script><b>": "</script><b>"}, "volumes": {}})


# ------------------------------------------------------------------------------------------------------------- pages

def test_the_page_holds_everything(two_models):
    page = (two_models / "report.html").read_text()
    for heading in ("Where", "Dice against severity", "One modality missing", "Case by case", "Surface distance",
                    "Is the fused image a fusion", "Restoration", "gained most and least", "Rules"):
        assert re.search(f"<h2>[^<]*{heading}", page), heading
    assert not re.search(r"""\s(src|href)=["'](?!data:)|url\(|@import|https?://""", page)
    assert not re.search(r"<svg (?![^>]*aria-label)", page)


@pytest.mark.parametrize("models", [("solo",), ("vanilla", "rmr", "<b>&\"'third")])
def test_any_number_of_models(tmp_path, models):
    page = write_report(write_benchmark(tmp_path, models=models)).read_text()
    assert "<b>&\"'third" not in page
    assert ("better / worse" in page) == (len(models) > 1)
    assert len(models) == 1 or "&lt;b&gt;&amp;&#34;&#39;third − vanilla" in page


def test_restoration_and_image_change_are_shown_of_single_modalities_if_there_are_no_others(two_models, tmp_path):
    shutil.copytree(two_models, tmp_path, dirs_exist_ok=True)
    together = (two_models / "report.html").read_text()
    assert "noise, FLAIR only" not in together and "how much the images changed" in together
    cases = pd.read_csv(tmp_path / "cases.csv")
    cases[(cases.modality != "all") | (cases.corruption == "clean")].to_csv(tmp_path / "cases.csv", index=False)
    alone = write_report(tmp_path).read_text()
    assert "noise, FLAIR only" in alone and "how much the images changed" in alone


def visible(page: str) -> str:
    """Text of the page, words between single spaces."""
    return " ".join(re.sub("<[^>]*>", " ", re.sub("<(script|style).*?</\\1>", "", page, flags=re.S)).split())


def test_a_copy_of_a_modality_is_called_so_in_bold_and_no_other_image_is(tmp_path):
    page = write_report(write_benchmark(tmp_path, models=("vanilla", "rmr", "third"), examples=False)).read_text()
    copy, other = (re.search(f"<p[^>]*>({model}: of each modality&#39;s own edges.*?)</p>", page)
                   for model in ("rmr", "third"))
    assert copy[0].startswith('<p class="few">') and copy[1].endswith("<b>This is a copy of FLAIR.</b>")
    assert "T1 0.01, FLAIR 0.97" in copy[1]
    assert not other[0].startswith('<p class="few">') and other[1].endswith("This is no copy of one modality.")


def test_fused_images_stand_beside_gradient_fusion_and_a_copy(two_models):
    text = visible((two_models / "report.html").read_text())
    assert "rmr 8 0.01 0.97 1.00 FLAIR gradient 8 0.52 0.97 0.90 no copy copy of FLAIR 8 0.00 0.97 1.00 FLAIR" in text


def test_the_page_of_models_that_do_not_fuse_does_not_ask_whether_they_do(tmp_path):
    page = write_report(write_benchmark(tmp_path, models=("solo",), examples=False)).read_text()
    assert "Is the fused image a fusion" not in page and "Not measured: no model fuses." in page


def test_how_far_the_fused_image_is_from_its_target_anyway_is_shown(two_models):
    assert "clean rmr 8 – 33.0 – 1.000 0.950" in visible((two_models / "report.html").read_text())


def test_what_an_older_version_made_of_fused_images_is_not_measured(two_models, tmp_path):
    """Its restoration was that of the model's own image of the clean case."""
    shutil.copytree(two_models, tmp_path / "out")
    summary = json.loads((two_models / "summary.json").read_text())
    del summary["fusion"]
    (tmp_path / "out" / "summary.json").write_text(json.dumps(summary))
    text = visible(write_report(tmp_path / "out").read_text())
    assert "Is the fused image a fusion? Not measured: an older version" in text
    assert "one than without it? Not measured: an older version" in text
    assert "PSNR of the fused image" not in text


def test_a_model_that_could_not_be_measured_says_why(two_models, tmp_path):
    shutil.copytree(two_models, tmp_path / "out")
    failed = {"model": "rmr", "corruption": "clean", "case": "case_00", "fusion": None, "fusion_error": "no contrast"}
    summary = json.loads((two_models / "summary.json").read_text()) | {"fusion": summarise_fusion([failed], ["rmr"])}
    write_json(summary, tmp_path / "out" / "summary.json")
    text = visible(write_report(tmp_path / "out").read_text())
    assert "rmr: not measured (case_00: no contrast)." in text and "own edges, T1" not in text


def test_numbers_that_are_missing_everywhere_leave_a_page(tmp_path):
    write_benchmark(tmp_path, cases=2, examples=False)
    summary = json.loads((tmp_path / "summary.json").read_text())
    for key in ("scores", "differences", "corruption_errors", "mean_corruption_errors", "cost"):
        for row in summary[key]:
            row |= {k: None for k in row if k not in ("model", "corruption", "severity", "modality", "label", "metric")}
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"versions": None, "notes": None}))
    page = write_report(tmp_path).read_text()
    assert "not measured" in page and not re.search(r"\bnan\b", re.sub("<script.*?</script>", "", page, flags=re.S))


def test_an_example_that_can_not_be_read_is_named_and_left_out(two_models, tmp_path, capsys):
    shutil.copytree(two_models, tmp_path / "out")
    (tmp_path / "out" / "examples" / "case_00_3_0.nii.gz").unlink()
    page = write_report(tmp_path / "out").read_text()
    assert "case_00_3_0.nii.gz does not exist" in page and "case_00_3_0.nii.gz" in capsys.readouterr().err
    assert "case_00: clean" in page and "case_00: motion" not in page


# ----------------------------------------------------------------------------------------------------------- volumes

AFFINES = {"RAS": np.diag([2.0, 3, 4, 1]), "LPS": np.diag([-2.0, -3, 4, 1]),
           "permuted": np.array([[0, 0, 2.0, 5], [-3, 0, 0, 7], [0, -4, 0, 9], [0, 0, 0, 1]]),
           "oblique": np.array([[1.9, -0.6, 0, 5], [0.6, 2.9, 0.3, -7], [0, -0.3, 4, 9], [0, 0, 0, 1]])}


@pytest.mark.parametrize("name", AFFINES)
def test_a_voxel_keeps_its_place_in_mm_and_in_the_file(tmp_path, name):
    image = np.zeros((8, 9, 10), np.float32)
    image[2, 3, 7] = 5
    affine = AFFINES[name].copy()
    affine[:3, :3] = np.linalg.qr(affine[:3, :3])[0] * [2, 3, 4] if name == "oblique" else affine[:3, :3]
    write_nifti(tmp_path / "a.nii.gz", image, affine)
    volume = load(tmp_path / "a.nii.gz")
    (index,) = np.argwhere(volume.array == 5)
    place = [*index, 1]
    np.testing.assert_allclose((volume.to_mm @ place)[:3], (affine @ [2, 3, 7, 1])[:3], atol=1e-4)
    np.testing.assert_allclose((volume.to_file @ place)[:3], [2, 3, 7], atol=1e-4)
    # axes to the left, back and head: the main direction of each is negative, negative, positive in RAS
    assert [int(np.abs(column).argmax()) for column in volume.to_mm[:3, :3].T] == [0, 1, 2]
    assert np.all(np.diag(volume.to_mm)[:3] * [-1, -1, 1] > 0)


def test_the_box_holds_the_body_and_a_margin(tmp_path):
    image = np.zeros((20, 20, 20), np.float32)
    image[8:10, 1, 19] = 1
    write_nifti(tmp_path / "a.nii.gz", image, AFFINES["LPS"])
    assert body_box([load(tmp_path / "a.nii.gz")]) == (slice(5, 13), slice(0, 5), slice(16, 20))
    write_nifti(tmp_path / "b.nii.gz", 0 * image, AFFINES["LPS"])
    assert body_box([load(tmp_path / "b.nii.gz")]) == (slice(0, 20),) * 3


def test_bytes_span_the_range_and_clip():
    np.testing.assert_array_equal(as_bytes(np.array([-5, 0, 50, 100, 500]), 0, 100), [0, 0, 128, 255, 255])
    assert grey_range(np.zeros(5)) == (0.0, 1.0) and grey_range(np.array([0, 3, 3])) == (0.0, 3.0)


@pytest.mark.parametrize(("image", "message"), [(np.full((4, 4, 4), 0.5), "no segmentation"),
                                                (np.full((4, 4, 4), 300.0), "no segmentation")])
def test_what_is_no_segmentation_is_refused(tmp_path, image, message):
    write_nifti(tmp_path / "a.nii.gz", image.astype(np.float32), np.eye(4))
    with pytest.raises(BadCaseError, match=message):
        label_bytes(load(tmp_path / "a.nii.gz"))


def test_another_grid_and_nan_are_refused(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", np.ones((4, 4, 4), np.float32), np.eye(4))
    write_nifti(tmp_path / "b.nii.gz", np.ones((4, 4, 4), np.float32), np.diag([2.0, 1, 1, 1]))
    write_nifti(tmp_path / "c.nii.gz", np.full((4, 4, 4), np.nan, np.float32), np.eye(4))
    with pytest.raises(BadCaseError, match=r"b\.nii\.gz.*grid"):
        load(tmp_path / "b.nii.gz", on=load(tmp_path / "a.nii.gz"))
    with pytest.raises(BadCaseError, match=r"c\.nii\.gz.*NaN"):
        load(tmp_path / "c.nii.gz")


# -------------------------------------------------------------------------------------------------------------- view

@pytest.fixture
def own_predictions(tmp_path) -> Path:
    """images/ and predictions/ as nnU-Net and nnUNetv2_rmr_predict write them, from a benchmark's clean example."""
    examples = write_benchmark(tmp_path / "benchmark", cases=1) / "examples"
    for source, target in {"case_00_0_0": "images/a_0000", "case_00_0_1": "images/a_0001", "case_00_label": "labels/a",
                           "case_00_0_model1": "predictions/a", "case_00_0_fused1": "predictions/fused/a"}.items():
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(examples / f"{source}.nii.gz", tmp_path / f"{target}.nii.gz")
    (tmp_path / "predictions" / "dataset.json").write_text(json.dumps(
        {"channel_names": {"0": "T1", "1": "FL<AIR"}, "labels": {"background": 0, "whole": [1, 2], "core": 2},
         "regions_class_order": [1, 2], "file_ending": ".nii.gz"}))
    return tmp_path


def view(folder: Path, *cases: str) -> int:
    with pytest.raises(SystemExit) as stop:
        view_cli.main(["-i", str(folder / "images"), "-p", str(folder / "predictions"), "--labels",
                       str(folder / "labels"), "-o", str(folder / "view.html"), *cases])
    return stop.value.code


def test_view_names_modalities_and_labels_by_the_dataset(own_predictions):
    assert view(own_predictions, "a") == 0
    page = (own_predictions / "view.html").read_text()
    facts = json.loads(re.search(r'class="facts">(.*?)</script>', page, re.S)[1])
    (study,) = facts["studies"]
    assert [i["name"] for i in study["images"]] == ["T1", "FL<AIR", "fused"] and "FL<AIR" not in page
    assert [s["name"] for s in study["segmentations"]] == ["expert label", "prediction"]
    assert facts["labels"] == {"1": "whole", "2": "core"}


def test_view_shows_what_fuse_wrote_without_any_prediction(own_predictions, capsys):
    page, fused = own_predictions / "fused.html", own_predictions / "predictions" / "fused"
    shutil.copy(own_predictions / "predictions" / "dataset.json", own_predictions / "images")
    with pytest.raises(SystemExit) as stop:
        view_cli.main(["-i", str(own_predictions / "images"), "--fused", str(fused), "-o", str(page), "a", "nobody"])
    assert stop.value.code == 1 and "nobody_0000.nii.gz does not exist" in capsys.readouterr().err
    facts = json.loads(re.search(r'class="facts">(.*?)</script>', page.read_text(), re.S)[1])
    assert [[i["name"] for i in s["images"]] + s["segmentations"] for s in facts["studies"]] == [
        ["T1", "FL<AIR", "fused"]]
    (fused / "a.nii.gz").rename(fused / "b.nii.gz")
    with pytest.raises(SystemExit, match="no case can be shown"):
        view_cli.main(["-i", str(own_predictions / "images"), "--fused", str(fused), "-o", str(page), "a"])
    assert "fused/a.nii.gz does not exist" in capsys.readouterr().err


def test_view_of_neither_predictions_nor_fused_images_is_refused(own_predictions, capsys):
    with pytest.raises(SystemExit):
        view_cli.main(["-i", str(own_predictions / "images"), "a"])
    assert "-p, --fused" in capsys.readouterr().err


def test_view_reports_a_bad_case_and_shows_the_others(own_predictions, capsys):
    assert view(own_predictions, "a", "nobody") == 1
    assert "nobody_0000.nii.gz does not exist" in capsys.readouterr().err
    assert (own_predictions / "view.html").is_file()


def test_view_refuses_modalities_whose_headers_place_them_differently(own_predictions, capsys):
    move_qform(own_predictions / "images" / "a_0001.nii.gz", 11)
    assert "no case can be shown" in view(own_predictions, "a")
    assert "a_0001.nii.gz: by its sform it lies up to 11 mm from" in capsys.readouterr().err
    move_qform(own_predictions / "images" / "a_0000.nii.gz", 11)
    assert view(own_predictions, "a") == 0 and "WARNING: case a: " in capsys.readouterr().out


def test_what_a_killed_report_or_view_left_is_removed(two_models, own_predictions):
    for write, page in ((lambda: write_report(two_models), two_models / "report.html"),
                        (lambda: view(own_predictions, "a"), own_predictions / "view.html")):
        killed_while_writing(page)
        write()
        assert not [file for file in page.parent.iterdir() if ".tmp." in file.name]


def test_view_of_bad_cases_only_writes_nothing(own_predictions):
    assert "no case can be shown" in view(own_predictions, "nobody")
    assert not (own_predictions / "view.html").exists()


def test_label_names_of_plain_labels():
    assert label_names({"labels": {"background": 0, "core": 2, "edema": 1}}) == {2: "core", 1: "edema"}
    assert label_names({}) == {}


# ----------------------------------------------------------------------------------------------------------- browser

@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium; what is installed is used, nothing is downloaded."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                     "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1300,1000",
                     "--disable-dev-shm-usage", f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def page(browser, two_models):
    open_page(browser, two_models / "report.html")
    return browser


def open_page(browser, file: Path) -> None:
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # forget what was before
    browser.get(file.as_uri())
    deadline = time.monotonic() + 30
    while browser.execute_script("return document.querySelector('.viewer').dataset.ready") != "yes":
        assert time.monotonic() < deadline, browser.execute_script("return document.querySelector('.viewer').innerText")
        time.sleep(0.05)


PIXELS = """return [...document.querySelectorAll('.viewer canvas')].map((c) => {
    const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    let hash = 0;
    for (const byte of data) hash = (hash * 31 + byte) | 0;
    return hash; });"""


def shown(browser, what: str) -> list[float]:
    """Voxel ("cursor") or position ("mm") of the cursor."""
    text = browser.execute_script("return document.querySelector('.viewer').dataset[arguments[0]]", what)
    return [float(number) for number in text.split(",")]


def change(browser, selector: str, value) -> None:
    browser.execute_script("""const input = document.querySelector(arguments[0]);
        if (typeof arguments[1] === 'boolean') input.checked = arguments[1]; else input.value = arguments[1];
        for (const kind of ['input', 'change']) input.dispatchEvent(new Event(kind));""", selector, value)


def click(browser, canvas: str, across: float, down: float) -> None:
    """At parts of the width and height of a canvas."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    element = browser.find_element(By.CSS_SELECTOR, canvas)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    size = element.size
    ActionChains(browser).move_to_element_with_offset(
        element, round((across - 0.5) * size["width"]), round((down - 0.5) * size["height"])).click().perform()


def canvas(plane: str, image: str) -> str:
    return f'.viewer canvas[data-plane="{plane}"][data-image="{image}"]'


def test_the_report_loads_without_errors_and_requests_nothing(page, two_models):
    assert page.get_log("browser") == []
    own = (two_models / "report.html").as_uri()
    logged = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [m["params"] for m in logged if m["method"] == "Network.requestWillBeSent"]
    # the log also holds what Chromium's own start page (chrome://new-tab-page) loads from itself
    urls = [p["request"]["url"] for p in sent if p["documentURL"] == own or not p["documentURL"].startswith("chrome")]
    assert [u for u in urls if not u.startswith("data:")] == [own]


def test_a_click_moves_the_cursor_of_every_plane_and_volume(page):
    before, cursor = page.execute_script(PIXELS), shown(page, "cursor")
    assert len(before) == 3 * (len(MODALITIES) + 1)
    click(page, canvas("axial", "T1"), 0.4, 0.65)
    assert shown(page, "cursor") != cursor
    assert all(a != b for a, b in zip(before, page.execute_script(PIXELS)))


@pytest.mark.parametrize(("plane", "image"), [("axial", "T1"), ("coronal", "FLAIR"), ("sagittal", "fused, rmr")])
def test_the_cursor_lands_where_nibabel_says(page, two_models, plane, image):
    """Right is on the left in axial and coronal planes; the front is left in sagittal ones."""
    click(page, canvas(plane, image), 0.3, 0.4)
    voxel, mm = shown(page, "cursor"), shown(page, "mm")
    file = nibabel.load(two_models / "examples" / "case_00_0_0.nii.gz")
    np.testing.assert_allclose(nibabel.affines.apply_affine(file.affine, voxel), mm, atol=0.06)
    extent = nibabel.affines.apply_affine(file.affine, [[0, 0, 0], np.array(file.shape) - 1])
    middle, width = extent.mean(0), np.abs(np.ptp(extent, axis=0))
    right, front, up = (np.array(mm) - middle) / width
    horizontal, vertical = {"axial": (right, front), "coronal": (right, up), "sagittal": (front, up)}[plane]
    # 0.3 of the way from the left, 0.4 from the top; the box around the body is smaller than the image
    assert 0.1 < horizontal < 0.3 and 0.02 < vertical < 0.2


def test_all_columns_are_in_the_window_at_first(page):
    over = "const s = document.querySelector('.viewer .scroll'); return s.scrollWidth - s.clientWidth"
    assert page.execute_script(over) <= 0


def test_values_are_those_of_the_file(page, two_models):
    click(page, canvas("axial", "T1"), 0.45, 0.55)
    voxel = tuple(map(int, shown(page, "cursor")))
    study = page.execute_script("return document.querySelector('.viewer').viewer.study")
    texts = page.execute_script("return [...document.querySelectorAll('.viewer .value')].map((e) => e.textContent)")
    severity = 0 if "clean" in study["title"] else 3
    for i, (image, text) in enumerate(zip(study["images"][:2], texts)):
        value = nibabel.load(two_models / "examples" / f"case_00_{severity}_{i}.nii.gz").get_fdata()[voxel]
        assert float(text.lstrip("≥≤ ")) == pytest.approx(np.clip(value, image["low"], image["high"]),
                                                         abs=(image["high"] - image["low"]) / 255)


def test_the_overlay_can_be_switched_off_and_faded(page):
    on = page.execute_script(PIXELS)
    change(page, ".viewer .overlay", False)
    off = page.execute_script(PIXELS)
    assert all(a != b for a, b in zip(on, off))
    change(page, ".viewer .overlay", True)
    assert page.execute_script(PIXELS) == on
    change(page, ".viewer .outline", "")
    change(page, ".viewer .opacity", 0)
    assert page.execute_script(PIXELS) == off


def test_another_prediction_can_be_chosen(page):
    fill = "return [...document.querySelector('.viewer .fill').options].map((o) => o.textContent)"
    assert page.execute_script(fill) == ["none", "expert label", "vanilla", "rmr"]
    before = page.execute_script(PIXELS)
    change(page, ".viewer .fill", "2")
    assert page.execute_script(PIXELS) != before


def test_the_window_of_an_image_changes_its_pixels_only(page):
    before = page.execute_script(PIXELS)
    change(page, ".viewer .head:nth-child(2) .width", 40)
    after = page.execute_script(PIXELS)
    columns = len(MODALITIES) + 1
    assert [i % columns == 1 for i in range(len(after))] == [a != b for a, b in zip(before, after)]


def test_another_study_of_the_case_keeps_the_cursor(page):
    click(page, canvas("axial", "T1"), 0.4, 0.65)
    cursor, before = shown(page, "cursor"), page.execute_script(PIXELS)
    change(page, ".viewer .study", "1")
    deadline = time.monotonic() + 10
    while page.execute_script(PIXELS) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert page.execute_script(PIXELS) != before
    assert shown(page, "cursor") == cursor


def test_arrow_keys_and_wheel_move_by_one_voxel(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    start = np.array(shown(page, "mm"))
    page.find_element(By.CSS_SELECTOR, canvas("axial", "T1")).send_keys(Keys.ARROW_RIGHT)
    np.testing.assert_allclose(shown(page, "mm") - start, [-2, 0, 0], atol=0.01)  # to the patient's left
    page.find_element(By.CSS_SELECTOR, canvas("axial", "T1")).send_keys(Keys.ARROW_UP, Keys.PAGE_UP)
    np.testing.assert_allclose(shown(page, "mm") - start, [-2, 2, 2.5], atol=0.01)


VISIBLE = """return [...document.querySelectorAll('.panels svg')].filter((s) => s.getClientRects().length)
    .map((s) => s.outerHTML).join('')"""


@pytest.mark.parametrize(("selector", "value"),
                         [("label", "core"), ("modality", "FLAIR"), ("axis", "image difference")])
def test_a_selector_changes_the_curves(page, selector, value):
    before = page.execute_script(VISIBLE)
    change(page, f"select[data-selects={selector}]", value)
    after = page.execute_script(VISIBLE)
    assert before.count("<svg") == after.count("<svg") > 4 and before != after


def test_the_view_page_works_as_well(browser, own_predictions):
    assert view(own_predictions, "a") == 0
    open_page(browser, own_predictions / "view.html")
    assert browser.get_log("browser") == []
    before = browser.execute_script(PIXELS)
    click(browser, canvas("coronal", "fused"), 0.4, 0.6)
    assert all(a != b for a, b in zip(before, browser.execute_script(PIXELS)))
