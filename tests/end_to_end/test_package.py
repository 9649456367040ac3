"""`pip install .` elsewhere: the wheel carries models/, arch/ and studies/, and works from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from hwsim.catalogue import names, root

PROJECT = root("arch").parent


@pytest.mark.slow
def test_wheel_in_a_temporary_venv(tmp_path):
    if not (PROJECT / "pyproject.toml").is_file():
        pytest.skip("builds the wheel from a checkout")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(PROJECT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    # the dependencies are borrowed, so that the test needs no network; the wheel's own folder comes first
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def hwsim(*arguments: str) -> str:
        command = [str(python), "-m", "hwsim.cli", *arguments]
        return subprocess.run(command, cwd=elsewhere, check=True, capture_output=True, text=True).stdout

    where = subprocess.run(
        [str(python), "-c", "import hwsim; print(hwsim.__file__)"], cwd=elsewhere, check=True, capture_output=True, text=True
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
    assert json.loads(hwsim("list", "--json")) == {folder: names(folder) for folder in ("models", "arch", "studies")}
    for study in names("studies"):
        assert json.loads(hwsim("check", study, "--json"))["summary"]["failed"] == 0
    hwsim("run", "llama-3.1-8b", "h100", "--phase", "decode", "--report", "r.html")
    assert (elsewhere / "r.html").stat().st_size > 1_000_000
