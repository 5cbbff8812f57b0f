"""Several processes at once: a restart after a killed one, and one cold cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from hub_server import Hub
from safetensors.torch import save

import timm_resattn

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(HERE), str(Path(timm_resattn.__file__).parents[1])]),
    "OMP_NUM_THREADS": "1",
}


def test_restart_after_a_killed_rank_goes_on(tmp_path):
    weights = {}
    for how in ("whole", "kill"):
        folder = tmp_path / how
        folder.mkdir()
        command = [*TORCHRUN, "--max-restarts=1", HERE / "restart_scenario.py", folder]
        command += ["kill"] if how == "kill" else []
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        assert ("begins at step 3" in done.stderr) == (how == "kill")
        weights[how] = torch.load(folder / "last.pt")["model"]
    assert all(torch.equal(tensor, weights["kill"][name]) for name, tensor in weights["whole"].items())


COLD = """
import hashlib, sys, timm, timm_resattn
kwargs = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1), stem_chs=8, num_classes=5)
overlay = dict(file=None, hf_hub_id="org/small", num_classes=5)
model = timm.create_model("resattn56_cifar", pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)
print(hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())).hexdigest())
"""


def test_cold_cache_and_six_processes(tmp_path):
    kwargs = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1), stem_chs=8, num_classes=5)
    model = timm.create_model("resattn56_cifar", **kwargs)
    with Hub() as hub:
        hub.repos = {"org/small": {"model.safetensors": save(model.state_dict())}}
        env = {key: value for key, value in ENVIRONMENT.items() if key != "HF_HUB_OFFLINE"}
        env.update(HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hf"), NO_PROXY="127.0.0.1")
        started = [
            subprocess.Popen([sys.executable, "-c", COLD], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(6)
        ]
        told = [process.communicate(timeout=600) for process in started]
    assert not any(process.returncode for process in started), told
    assert len({out for out, _ in told}) == 1 and told[0][0]
    assert not [*tmp_path.rglob("*.incomplete")]
