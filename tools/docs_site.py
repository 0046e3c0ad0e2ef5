"""`python -m tools.docs_site DIR`: build the documentation into DIR; every warning is an error.

The site is made of the Markdown pages that a code host shows, laid out as they lie in the repository, so that one link works in
both. One page per package is added with the docstrings of its modules. Nothing is taken from a network.
"""

import argparse
import pkgutil
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sphinx.cmd.build import main as sphinx

import quantbot_pipeline

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = Path(__file__).with_name("sphinx")
PROJECT_PAGES = ("CONTRIBUTING", "CHANGELOG")


def build(site: Path, scratch: Path) -> int:
    """Build the site by way of `scratch`; return Sphinx's exit status."""
    stage(scratch / "source")
    return render(scratch / "source", site, scratch / "read")


def render(source: Path, site: Path, read: Path) -> int:
    """Run Sphinx over the pages of `source`, strictly; return its exit status."""
    options = ["-W", "--keep-going", "-q", "-E", "-c", str(CONFIGURATION), "-d", str(read)]
    return sphinx([*options, "-b", "html", str(source), str(site)])


def stage(source: Path) -> None:
    """Lay out in `source` what Sphinx reads: README as the index, the other pages, what they link to, and the API pages."""
    shutil.copytree(ROOT / "docs", source / "docs")
    shutil.copytree(ROOT / "examples", source / "examples", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("LICENSE", *(f"{page}.md" for page in PROJECT_PAGES)):
        shutil.copyfile(ROOT / name, source / name)
    for page in source.glob("**/*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace("](../README.md", "](../index.md"), encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    # The README names the pages in the order in which they are read; others follow by name.
    names = sorted((page.stem for page in source.glob("docs/*.md")), key=lambda name: (_place(readme, name), name))
    trees = {
        "Documentation": [f"docs/{name}" for name in names],
        "Python API": _write_api(source / "api"),
        "Project": PROJECT_PAGES,
    }
    listed = "\n".join(_tree(caption, pages) for caption, pages in trees.items())
    (source / "index.md").write_text(f"{readme}\n{listed}", encoding="utf-8")


def _place(readme: str, name: str) -> int:
    found = readme.rfind(f"](docs/{name}.md)")
    return found if found >= 0 else len(readme)


def _tree(caption: str, pages: Iterable[str]) -> str:
    return f"```{{toctree}}\n:caption: {caption}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def _write_api(folder: Path) -> list[str]:
    """Write a page for the modules at the top and one for each package; return the pages' names."""
    folder.mkdir()
    packages = {module.name: module.ispkg for module in pkgutil.iter_modules(quantbot_pipeline.__path__)}
    top = [
        f"quantbot_pipeline.{name}" for name, is_package in packages.items() if not is_package and name != "__main__"
    ]
    pages = {"quantbot_pipeline": ["quantbot_pipeline", *top]}
    for name in (name for name, is_package in packages.items() if is_package):
        path = [str(Path(root) / name) for root in quantbot_pipeline.__path__]
        inside = pkgutil.walk_packages(path, f"quantbot_pipeline.{name}.")
        pages[name] = [f"quantbot_pipeline.{name}", *(module.name for module in inside)]
    for page, modules in pages.items():
        sections = [f"# {page}\n", _documented(modules[0])]
        sections += [
            f"## {module.removeprefix('quantbot_pipeline.')}\n\n{_documented(module)}" for module in modules[1:]
        ]
        (folder / f"{page}.md").write_text("\n".join(sections), encoding="utf-8")
    return [f"api/{page}" for page in pages]


def _documented(module: str) -> str:
    return f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n   :show-inheritance:\n```\n"


def main() -> int:
    """Build into the folder that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="folder for the pages; index.html is the first")
    site = parser.parse_args().site
    with tempfile.TemporaryDirectory() as scratch:
        status = build(site.absolute(), Path(scratch))
    if status == 0:
        print(f"{site}/index.html")
    return status


if __name__ == "__main__":
    sys.exit(main())
