"""Training in several processes: the tests of the suite that start them, counted.

The cases are in ``tests/test_distributed.py`` and ``tests/test_processes.py``.
"""

from typing import Any

import pytest

from benchmarks.common.provenance import ROOT
from benchmarks.reliability.tally import Tally

KINDS = {
    "test_ddp": "DistributedDataParallel",
    "test_fsdp": "FSDP2",
    "test_restart": "torchrun restarts after a killed rank",
    "test_cold": "six processes and a cold cache",
}
CASES = len(KINDS)


class _Counted:
    """A plugin of pytest that counts the tests of `KINDS`."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        kind = next((told for name, told in KINDS.items() if name in report.nodeid), None)
        if kind is None:
            return
        if report.skipped:
            self.skipped.append(f"{report.nodeid}: {report.longrepr}")
        elif report.failed:
            self.tally.add(kind, "crashed", report.nodeid, str(report.longrepr)[-1000:])
        elif report.when == "call":
            self.tally.add(kind, "computed")


def run(tally: Tally, count: int, seed: int) -> dict[str, Any]:
    """Run the tests of the first so many kinds."""
    counted = _Counted(tally)
    chosen = " or ".join([*KINDS][:count])
    files = [str(ROOT / "tests" / name) for name in ("test_distributed.py", "test_processes.py")]
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen, *files], plugins=[counted])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {code}: nothing is known of the tests")
    return {"skipped": counted.skipped}
