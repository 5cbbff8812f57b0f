import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

import timm_resattn
from timm_resattn import cli
from timm_resattn.cli import main
from timm_resattn.demo import DemoResult

TINY_KWARGS = ["depths=(1,1)", "widths=(16,32)", "closing_units=(0,1)", "mask_pools=(2,1)"]
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


@pytest.fixture
def checkpoint(tmp_path):
    """Arguments that load a tiny network, and an image."""
    from PIL import Image

    kwargs = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1))
    model = timm.create_model("resattn56_cifar", **kwargs)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    Image.radial_gradient("L").save(tmp_path / "image.png")
    paths = {name: str(tmp_path / name) for name in ("image.png", "weights.pth", "masks.png")}
    options = ["--model", "resattn56_cifar", "--checkpoint", paths["weights.pth"], "--out", paths["masks.png"]]
    return [paths["image.png"], *options, "--model-kwargs", *TINY_KWARGS]


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
    assert lines[1].split()[:3] == ["resattn56", "31,810,728", "3x224x224"]


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


@pytest.mark.parametrize("version", ["0.0.1", timm.__version__, None])
def test_run_notes_another_timm_beside_the_script(tmp_path, version, capsys, own_process_state):
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").touch()
    if version is not None:
        (tmp_path / "timm" / "version.py").write_text(f"__version__ = '{version}'\n")
    script = tmp_path / "script.py"
    script.write_text("import timm\nprint(timm.__version__)\n")
    assert main(["run", str(script)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{timm.__version__}\n"
    if version == timm.__version__:
        assert captured.err == ""
    else:
        assert f"using the installed timm {timm.__version__}, not timm {version or '('}" in captured.err
        assert captured.err.count("\n") == 1


def test_masks_of_a_transplanted_trunk_are_refused(checkpoint, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    weights = torch.load(tmp_path / "weights.pth", weights_only=True)["state_dict"]
    for name in weights:
        if name.endswith("mask.tail.conv2.weight"):
            weights[name].zero_()
    torch.save(weights, tmp_path / "weights.pth")
    assert main(["masks", *checkpoint]) == 2
    assert "untrained masks" in capsys.readouterr().err
    assert not (tmp_path / "masks.png").exists()


def test_masks_draws_over_images(checkpoint, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    from PIL import Image

    assert main(["masks", *checkpoint]) == 0
    assert "masks of 2 Attention Modules over 1 images" in capsys.readouterr().out
    with Image.open(tmp_path / "masks.png") as picture:
        one_reduction = picture.width
    assert main(["masks", *checkpoint, "--img-size", "40", "--reduce", "pca", "--reduce", "channel:15"]) == 0
    with Image.open(tmp_path / "masks.png") as picture:
        assert picture.width > 1.4 * one_reduction


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--model", "resattn57"], "Unknown model (resattn57); timm-resattn list prints the names"),
        (["--model", "resnet18"], "could not create resnet18"),
        (["--checkpoint", ""], "masks of random weights mean nothing"),
        (["--checkpoint", "no_such_file.pth"], "there is no file 'no_such_file.pth'"),
        (["--checkpoint", __file__], "could not create resattn56_cifar"),
        (["--num-classes", "7"], "size mismatch for head.fc.weight"),
        (["--model-kwargs", *TINY_KWARGS, "mask_type=none"], "could not create resattn56_cifar"),
        (["--img-size", "1"], "at least"),
        (["--reduce", "median"], "how must be one of 'mean'"),
        (["--reduce", "channel:16", "--reduce", "mean"], "k of channel:<k> must be 0 to 15"),
        (["--out", "no_such_folder/masks.png"], "does not exist"),
        (["--out", "masks.xyz"], "suffix must be one of"),
        (["no_such_image.png"], "no_such_image.png"),
        ([__file__], "cannot identify image file"),
    ],
)
def test_masks_reports_one_sentence_and_writes_nothing(extra, message, checkpoint, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    argv = ["masks", *checkpoint, *extra] if extra[0].startswith("--") else ["masks", *extra, *checkpoint]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("timm-resattn masks: ")
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_masks_refuses_model_kwargs_without_a_value(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["masks", "image.png", "--model", "resattn56_cifar", "--model-kwargs", "depths"])
    assert "'depths' is not KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize(("accuracy", "code"), [(0.98, 0), (0.95, 1), (0.5, 1)])
def test_demo_prints_the_accuracy_and_returns_whether_it_is_good(accuracy, code, capsys, monkeypatch):
    monkeypatch.setattr(cli, "run_demo", lambda *args: DemoResult(accuracy, 599, [1.0], 61.5))
    assert main(["demo", "--seed", "3", "--epochs", "4", "--out", "x.png"]) == code
    captured = capsys.readouterr()
    assert captured.out == (f"{accuracy:.2%} of 599 held-out digits right (seed 3, 4 epochs, 62 s); masks in x.png\n")
    assert ("expected more than 95%" in captured.err) == (code == 1)


def test_demo_without_the_extra_names_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err.endswith('pip install "timm-resattn[demo]"\n')
