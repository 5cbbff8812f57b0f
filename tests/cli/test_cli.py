import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm

import timm_resattn
from timm_resattn.cli import main

TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(tmp_path, script_text, *args, launcher=("-m", "timm_resattn")):
    """Run ``script_text`` from another folder by the launcher, in a process of its own."""
    script = tmp_path / "scripts" / "script.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(script_text)
    (script.parent / "beside_the_script.py").touch()
    root = Path(timm_resattn.__file__).parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *launcher, "run", os.path.relpath(script, tmp_path), *args],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture
def own_process_state(monkeypatch):
    """What ``run`` leaves to the script."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "argv", sys.argv.copy())


def test_version_and_help(capsys):
    for option, expected in (("--version", timm_resattn.__version__), ("--help", "masks")):
        with pytest.raises(SystemExit) as exit_info:
            main([option])
        assert exit_info.value.code == 0
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["run"], ["masks"]])
def test_wrong_use_prints_the_usage(argv, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(argv)
    assert exit_info.value.code == 2
    assert "usage: timm-resattn" in capsys.readouterr().err


def test_list_names_every_model_with_its_size(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == timm.list_models(module="resattn")
    assert lines[1].split() == ["resattn50", "36,842,664", "3x224x224", "a1h_in1k"]
    assert lines[2].endswith("a1_in1k, fb_swsl_ig1b_ft_in1k (cc-by-nc-4.0), tv2_in1k")


def test_list_into_head(tmp_path):
    """The reader closes the pipe after a line: no word of it, and no traceback."""
    command = f"PYTHONUNBUFFERED=1 {sys.executable} -c '{CONSOLE_SCRIPT}' list | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=600, check=True)
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


PROBE = """
import json, os, sys, timm
import beside_the_script
print(json.dumps(dict(
    argv=sys.argv, name=__name__, file=__file__, known=timm.is_model("resattn56"),
    first=sys.path[0], cwd_on_path=os.getcwd() in sys.path or "" in sys.path,
)))
sys.exit(7)
"""
CONSOLE_SCRIPT = "import sys\nfrom timm_resattn.cli import main\nsys.exit(main())\n"


@pytest.mark.parametrize("launcher", ["module", "console script"])
def test_run_is_python_with_the_models_registered(tmp_path, launcher):
    command = ["-m", "timm_resattn"]
    if launcher == "console script":
        command = ["bin/timm-resattn"]
        (tmp_path / "bin").mkdir()
        (tmp_path / command[0]).write_text(CONSOLE_SCRIPT)
    args = ["--help", "-m", "timm", "--", "--version", "--x=a b", ""]
    result = start(tmp_path, PROBE, *args, launcher=command)
    assert result.returncode == 7, result.stderr
    probe = json.loads(result.stdout)
    assert probe == dict(
        argv=[probe["file"], *args],
        name="__main__",
        file=str(tmp_path / "scripts" / "script.py"),
        known=True,
        first=str(tmp_path / "scripts"),
        cwd_on_path=False,
    )


def test_run_lets_exceptions_through_with_their_traceback(tmp_path, own_process_state):
    script = tmp_path / "script.py"
    script.write_text("def fail():\n    raise ValueError('from the script')\n\nfail()\n")
    with pytest.raises(ValueError, match="from the script") as error:
        main(["run", str(script)])
    assert (error.traceback[-1].path, error.traceback[-1].lineno) == (script, 1)


def test_run_without_the_script_says_where_timm_has_them(capsys):
    assert main(["run", "no_such_folder/train.py", "--help"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and "Traceback" not in message
    for part in (
        "'no_such_folder/train.py'",
        "onnx_export.py",
        f"--branch v{timm.__version__} https://github.com/",
    ):
        assert part in message


def test_run_with_spawned_workers(tmp_path):
    script = """
import sys, torch
from torch.utils.data import DataLoader, Dataset

print("top level of", __name__, flush=True)

class Squares(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        return torch.tensor(i * i)

if __name__ == "__main__":
    loader = DataLoader(Squares(), batch_size=3, num_workers=1, multiprocessing_context="spawn")
    print("sum", sum(int(batch.sum()) for batch in loader), flush=True)
"""
    result = start(tmp_path, script)
    assert result.returncode == 0, result.stderr
    lines = sorted(result.stdout.splitlines())
    assert lines == ["sum 55", "top level of __main__", "top level of __mp_main__"]


def test_run_under_torchrun_trains_in_step(tmp_path):
    script = """
import os, sys, timm, torch, torch.distributed as dist
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(rank)
model = timm.create_model(
    "resattn56_cifar", depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1)
)
model = torch.nn.parallel.DistributedDataParallel(model)
model(torch.rand(2, 3, 16, 16)).square().mean().backward()
print(f"rank {rank} of {dist.get_world_size()} {sys.argv[1:]}\\n", end="", flush=True)
gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
total = gradient.clone()
dist.all_reduce(total)
assert torch.allclose(total, 2 * gradient) and total.norm() > 0
dist.destroy_process_group()
"""
    result = start(tmp_path, script, "--lr", "0.1", launcher=["-m", *TORCHRUN, "-m", "timm_resattn"])
    assert result.returncode == 0, result.stderr
    assert sorted(result.stdout.split("\n"))[1:] == [f"rank {rank} of 2 ['--lr', '0.1']" for rank in (0, 1)]


def test_reparam_of_timms_scripts(tmp_path, own_process_state):
    """timm folds before it calls eval(); the launcher leaves timm's function as it is."""
    fold = timm.utils.reparameterize_model
    script = tmp_path / "script.py"
    script.write_text("")
    assert main(["run", str(script)]) == 0
    assert timm.utils.reparameterize_model is timm.utils.model.reparameterize_model is fold


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("timm_resattn.cli.predict.load_model", interrupted)
    assert main(["predict", "photo.jpg"]) == 130
    assert capsys.readouterr().err == "timm-resattn predict: interrupted\n"
