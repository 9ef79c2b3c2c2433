"""What a host needs: the arithmetic of `benches/scale.py`, and its real runs."""

import importlib.util
import math
import re
import subprocess
import sys

import pytest
from conftest import ROOT

SCALE = ROOT / "benches/scale.py"


def run(*arguments):
    done = subprocess.run([sys.executable, str(SCALE), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def test_hosts_are_as_many_as_hold_two_tables_and_two_graphs():
    rows = [line.split("|")[1:-1] for line in run("--table").splitlines()[2:]]
    for samples, row in zip((1e8, 1e9, 1e10), rows, strict=True):
        hosts, each = int(row[1]), samples / int(row[1])
        needed = each * (2 * (768 + 4) + 2 * 32 * 8 + 40)
        assert needed <= 200e9 < 2 * needed
        assert row[4].strip() == f"{needed / 1e9:,.0f} GB"
        assert row[2].strip() == f"{each / 1e6:,.0f} M"
        assert row[5].strip() == f"{each / 5000 / 3600:.1f} h"
        assert row[6].strip() == f"{each * 1000 * 768 / 350e9 / 60:.1f} min"
        cost = hosts * 4 * (each / 5000 + each * 1000 * 768 / 350e9) / 3600
        assert row[8].strip() == f"{cost:,.0f} $"


def test_real_runs_are_compared_with_what_was_predicted(tmp_path):
    small = ("--dimension", "16", "--candidates", "100", "--neighbors", "8", "--folder", str(tmp_path))
    told = run("--rows", "3000", "6000", *small)
    figures = dict(re.findall(r"figure scale\.(\S+) (\S+)", told))
    # An Arrow file has little but the rows.
    assert 1 <= float(figures["disk.6000"]) < 1.2
    assert {"reading.6000", "embedding.6000", "graph.6000", "delivery.6000", "refresh.6000"} <= figures.keys()
    assert not list(tmp_path.iterdir())


def test_times_grow_with_the_logarithm_of_the_samples():
    spec = importlib.util.spec_from_file_location("scale", SCALE)
    scale = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules["scale"] = scale
    spec.loader.exec_module(scale)
    assert scale.predicted([(1000, 2.0)], 5000) == pytest.approx(10)

    def seconds(rows):
        return rows * (1e-6 + 2e-7 * math.log(rows))

    known = [(rows, seconds(rows)) for rows in (10**6, 25 * 10**5)]
    assert scale.predicted(known, 10**7) == pytest.approx(seconds(10**7))
    # One that was faster a row, the more rows there were, costs no less than nothing.
    assert scale.predicted([(100, 10.0), (1000, 1.0)], 10**9) == 1e-3
