"""The lines of README run as they are written."""

import os
import re
import subprocess
import sys

from conftest import ROOT


def test_the_python_lines_run(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks) + "\nassert len(loader) == 79\nprint('done')\n")
    run = subprocess.run(
        [sys.executable, script], cwd=ROOT, capture_output=True, text=True, timeout=280, env={**os.environ}, check=False
    )
    assert run.returncode == 0, run.stderr
    similarity, *_ = run.stdout.split()
    assert 0 < float(similarity) < 1
    assert run.stdout.endswith("done\n")
