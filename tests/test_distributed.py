"""Training in several processes: DistributedDataParallel and FSDP2, with and without gradient checkpointing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed.fsdp

SCENARIOS = Path(__file__).with_name("distributed_scenarios.py")
KINDS = ("preact", "resnext", "inception", "double_skip", "local_conv", "no_mask", "no_pre_units")


def _run(scenario, kinds):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run([*command, SCENARIOS, scenario, *kinds], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_ddp():
    _run("ddp", KINDS)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(torch.distributed.fsdp, "fully_shard"), reason="needs torch 2.6")
@pytest.mark.parametrize("scenario", ["fsdp_blocks", "fsdp_units", "fsdp_parts"])
def test_fsdp(scenario):
    _run(scenario, ("resnext", "double_skip", "local_conv", "no_pre_units"))
