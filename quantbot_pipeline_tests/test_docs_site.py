"""The documentation builds without a warning, and what it builds is whole: pages, links, docstrings, nothing from a network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_site_builds_without_a_warning_and_is_whole(tmp_path: Path) -> None:
    """One test, since the build takes 13 s and parallel workers would each make their own."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs_site", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    has_every_page_of_the_repository(tmp_path)
    shows_public_docstrings_and_no_others(tmp_path)
    opens_without_a_network(tmp_path)


def has_every_page_of_the_repository(site: Path) -> None:
    pages = {page.relative_to(ROOT).with_suffix(".html") for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]}
    pages = {Path("index.html") if page.name == "README.html" else page for page in pages}
    assert len(pages) > 8
    assert pages <= {page.relative_to(site) for page in site.rglob("*.html")}
    # The pages link to the README, which is the index here.
    assert 'href="../index.html#your-own-data"' in (site / "docs/operations.html").read_text(encoding="utf-8")


def shows_public_docstrings_and_no_others(site: Path) -> None:
    packages = {path.parent.name for path in ROOT.glob("quantbot_pipeline/*/__init__.py")}
    assert packages == {page.stem for page in site.glob("api/*.html")} - {"quantbot_pipeline"}
    shown = set(re.findall(r'id="(quantbot_pipeline[\w.]*)"', "".join(p.read_text() for p in site.glob("api/*.html"))))
    assert {"quantbot_pipeline.settings.Settings", "quantbot_pipeline.months.month_of"} <= shown
    assert not [name for name in shown if any(word.startswith("_") for word in name.split("."))]
    settings = (site / "api/quantbot_pipeline.html").read_text(encoding="utf-8")
    assert "threads that decode and replay candles" in settings, "fields are shown with their descriptions"


def opens_without_a_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', page.read_text(encoding="utf-8"))
        assert loaded
        assert not [address for address in loaded if re.match(r"(?:\w+:)?//", address)], page


@pytest.mark.parametrize("link", ["gone.md", "#gone", "index.md#gone"])
def test_a_broken_link_is_an_error(tmp_path: Path, link: str) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "index.md").write_text(f"# Page\n\nSee [there]({link}).\n")
    code = "import sys; from pathlib import Path; from tools.docs_site import render; " + (
        "sys.exit(render(*map(Path, sys.argv[1:])))"
    )
    folders = [str(tmp_path / name) for name in ("source", "site", "read")]
    done = subprocess.run([sys.executable, "-c", code, *folders], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "gone" in done.stderr
