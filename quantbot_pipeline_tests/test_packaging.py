"""What a checkout promises to tools: version, license, types, a changelog of the version, and the same checks everywhere."""

import importlib.metadata
import importlib.resources
import re
import tomllib
from pathlib import Path

import quantbot_pipeline
from quantbot_pipeline.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def recipe(target: str) -> list[str]:
    """Return the commands of a target of the Makefile, with its environment's folder written out."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert found, f"no target {target}"
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in found[1].splitlines()]


def test_the_version_has_one_source() -> None:
    assert "version" not in PROJECT["project"]
    assert importlib.metadata.version("quantbot-pipeline") == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_changelog_begins_with_what_is_unreleased_and_then_has_the_version() -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert sections[1].split()[0] == __version__


def test_the_installed_package_names_its_license_and_its_types() -> None:
    metadata = importlib.metadata.metadata("quantbot-pipeline")
    assert metadata["License-Expression"] == "ISC"
    assert (ROOT / metadata["License-File"]).read_text(encoding="utf-8").startswith("ISC License")
    assert importlib.resources.files(quantbot_pipeline).joinpath("py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["quantbot_pipeline"]


def test_a_commit_is_checked_as_make_lint_checks() -> None:
    config = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"- repo: (.*)", config) == ["local"], "nothing is downloaded"
    assert re.findall(r"entry: (.*)", config) == recipe("lint")
    assert config.count("pass_filenames: false") == config.count("language: system") == len(recipe("lint"))


def test_every_direct_dependency_has_one_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names), key=lambda name: f"{name}==")
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [*PROJECT["project"]["dependencies"], *extras["dev"], *extras["docs"], *extras["bench"], *extras["sources"]]
    assert {re.match(r"[a-z0-9-]+", requirement)[0] for requirement in asked} <= set(names)  # type: ignore[index]
