"""The pages of docs/ as a site, and links between files that exist."""

import re
import subprocess
import sys

import pytest
import tiny

PAGES = [*tiny.ROOT.glob("*.md"), *(tiny.ROOT / "docs").glob("*.md"), *(tiny.ROOT / "benchmarks").glob("*.md")]


def test_the_site_is_made_offline_and_has_every_page(tmp_path):
    pytest.importorskip("mkdocs")
    made = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)], cwd=tiny.ROOT,
                          capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "not included in the" not in made.stderr
    assert "predict_single_npy_array" in (tmp_path / "api.html").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(tiny.ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if heading and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            assert heading in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target
