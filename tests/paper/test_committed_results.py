"""The tables in docs/results are those that `latentset report` makes of the runs beside them."""

from pathlib import Path

import pytest

from latentset.paper.report.paired import write_differences
from latentset.paper.report.results import gather, write_tables
from latentset.paper.report.runs import find_runs, group_runs
from latentset.paper.report.stores import Stores
from latentset.paper.report.table1 import write_table1
from latentset.paper.report.table3 import write_table3

RESULTS = Path(__file__).parents[2] / "docs" / "results"
REPORTS = sorted(path.parent for path in RESULTS.rglob("runs"))


@pytest.mark.parametrize("folder", REPORTS, ids=lambda folder: folder.name)
def test_tables_are_of_the_runs(folder: Path, tmp_path: Path) -> None:
    runs = find_runs([folder / "runs"])
    groups = group_runs(runs)
    write_tables(gather(runs), tmp_path)
    write_table1(groups, Stores.open([], []), tmp_path)
    write_table3(groups, tmp_path)
    write_differences(groups, tmp_path)
    tables = {path.name for path in tmp_path.iterdir()}
    assert {"table1.md", "table1.csv", "results.md", "results.csv"} <= tables
    for name in tables:
        committed, made = (path / name for path in (folder, tmp_path))
        assert committed.read_text(encoding="utf-8") == made.read_text(encoding="utf-8"), committed


def test_there_are_some() -> None:
    assert REPORTS
