"""The house stays simple: imports point one way, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import reportgen

PACKAGE = Path(reportgen.__file__).parent
FORBIDDEN = {
    "report": ("reportgen.engine", "reportgen.subject", "reportgen.techniques", "torch"),
    "figures": ("reportgen.engine", "reportgen.subject", "reportgen.techniques", "torch"),
    "subject": ("reportgen.engine", "reportgen.techniques", "reportgen.figures", "reportgen.report"),
    "engine": ("reportgen.figures", "reportgen.report"),
    "techniques": ("reportgen.subject", "torch"),
}
NO_TORCH = ("torch", "torchvision", "timm")


def imported(file: Path, *, top: bool = False) -> set[str]:
    """Modules imported by a file; only those imported with the file itself if `top`."""
    tree = ast.parse(file.read_text())
    nodes = tree.body if top else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_point_down_the_picture(room: str) -> None:
    for file in (PACKAGE / room).rglob("*.py"):
        top = imported(file, top=True)
        wrong = [name for name in top for forbidden in FORBIDDEN[room] if under(name, forbidden)]
        assert not wrong, f"{file.name} imports {wrong}"


def test_torch_is_imported_in_subject_and_engine_only() -> None:
    for file in PACKAGE.rglob("*.py"):
        if file.parent.name in ("subject", "engine"):
            continue
        wrong = [name for name in imported(file, top=True) for heavy in NO_TORCH if under(name, heavy)]
        assert not wrong, f"{file.relative_to(PACKAGE)} imports {wrong}"


@pytest.mark.parametrize(
    "statement",
    [
        "from reportgen.cli import main; main(['techniques'])",
        "import reportgen.pipeline, reportgen.result",
        "import reportgen",
    ],
)
def test_torch_stays_away(statement: str) -> None:
    heavy = "{'torch', 'torchvision', 'timm', 'matplotlib', 'weasyprint'}"
    code = f"import sys; {statement}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_imports_little() -> None:
    code = "import sys\nfrom reportgen.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
    code += "print(len(sys.modules), 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, numpy = done.stdout.splitlines()[-1].split()
    assert numpy == "False"
    assert int(count) < 500
