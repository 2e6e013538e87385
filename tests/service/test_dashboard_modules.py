"""The dashboard's modules by themselves: each is well formed, and what does not touch the page is right."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

ASSETS: Final = Path(__file__).parents[2] / "service/dashboard/assets"
TESTS: Final = Path(__file__).parent / "dashboard_modules"
NODE: Final = shutil.which("node") or ""

pytestmark = pytest.mark.skipif(not NODE, reason="no node here to run modules without a browser")


@pytest.mark.parametrize("name", sorted(path.name for path in ASSETS.glob("*.js")))
def test_a_module_is_well_formed(name: str, tmp_path: Path) -> None:
    """Each module can be read as what it is: a module, or a classic script."""
    script = tmp_path / (name if name == "theme.js" else name.replace(".js", ".mjs"))
    script.write_text((ASSETS / name).read_text())
    done = subprocess.run([NODE, "--check", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    defined = set(re.findall(r"^import \{ ([^}]*) \} from", script.read_text(), re.MULTILINE))
    body = re.sub(r"^import .*$", "", script.read_text(), flags=re.MULTILINE)
    for word in ", ".join(defined).split(", ") if defined else []:
        assert re.search(rf"\b{re.escape(word)}\b", body), f"{name} imports {word} and does not use it"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"])
@pytest.mark.parametrize("name", sorted(path.name.removesuffix(".test.mjs") for path in TESTS.glob("*.mjs")))
def test_modules_by_themselves(name: str, zone: str, tmp_path: Path) -> None:
    """What does not touch the page is tested without one, in zones ahead of UTC and behind."""
    for path in ASSETS.glob("*.js"):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    script = TESTS / f"{name}.test.mjs"
    (tmp_path / script.name).write_text(script.read_text())
    done = subprocess.run(
        [NODE, "--test", script.name],
        cwd=tmp_path,
        env={"TZ": zone, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\W+ pass [1-9]", done.stdout, re.MULTILINE), done.stdout
