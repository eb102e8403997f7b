"""The package as it is built: what travels in the wheel, and what the wheel says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import reportgen

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel made from it, as an index would hand them out."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What installing the wheel puts into site-packages."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def shipped(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_and_the_templates(unpacked: Path) -> None:
    templates = {f"templates/{name}" for name in shipped(ROOT / "templates")}
    assert templates
    assert shipped(unpacked / "reportgen") == shipped(ROOT / "reportgen") | templates
    assert "py.typed" in shipped(unpacked / "reportgen")


def test_the_wheel_holds_nothing_else(unpacked: Path) -> None:
    version = reportgen.__version__
    assert {path.name for path in unpacked.iterdir()} == {"reportgen", f"reportgen-{version}.dist-info"}


def test_the_licence_travels(unpacked: Path) -> None:
    (licence,) = unpacked.glob("*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert "Apache License" in licence.read_text("utf-8")


def test_metadata_and_module_agree(unpacked: Path) -> None:
    (file,) = unpacked.glob("*.dist-info/METADATA")
    told = HeaderParser().parsestr(file.read_text("utf-8"))
    assert told["Version"] == reportgen.__version__
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.11"
    (points,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "reportgen = reportgen.cli:main" in points.read_text("utf-8")


def test_no_version_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    everything = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    assert [one for one in everything if "==" in one or "<" in one or "~=" in one or "@" in one] == []


def test_the_program_runs_from_the_wheel_alone(unpacked: Path, tmp_path: Path) -> None:
    """Outside the checkout, with the unpacked wheel first on the path: its modules, its templates, its version."""
    code = (
        "import sys, reportgen, reportgen.cli\n"
        "from pathlib import Path\n"
        "home = Path(reportgen.__file__).parent\n"
        "print(home, (home / 'templates').is_dir())\n"
        "reportgen.cli.main(['--version'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [f"{unpacked / 'reportgen'} True", f"reportgen {reportgen.__version__}"], (
        done.stderr
    )


def test_the_sdist_holds_what_a_packager_needs(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"pyproject.toml", "LICENSE", "README.md", "Makefile", "samples/README.md", "scripts/setup.sh"}
    needed |= {"tests/conftest.py", "tests/test_project.py", "reportgen/cli.py"}
    needed |= {f"templates/{name}" for name in shipped(ROOT / "templates")}
    assert needed - names == set()
    assert [name for name in names if name.startswith((".venv", ".git/", "samples/images", "samples/report"))] == []
