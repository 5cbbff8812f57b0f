"""Masks as an adapter: what learns, what stays, and the launcher's option."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from helpers import live_in, noise, tiny
from timm.layers import convert_sync_batchnorm

import timm_resattn
from timm_resattn import ResAttn, train_all, train_masks_only
from timm_resattn.cli import main


def learns(name):
    return ".mask." in name or name.startswith(("norm.", "head."))


def trained(model, lr=0.1):
    """After a step in training mode, with drop path where the network has it."""
    optimizer = timm.optim.create_optimizer_v2(model.train(), opt="sgd", lr=lr)
    model(noise(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    return model


@pytest.mark.parametrize(
    "options", [{}, dict(unit_type="postact"), dict(pre_units=0), dict(drop_path_rate=0.5)], ids=str
)
def test_masks_final_norm_and_head_learn_and_nothing_else_changes(options):
    model = live_in(tiny(**options))
    expected = model(noise(2, 3, 32, 32))
    assert train_masks_only(model) is model
    assert torch.equal(model(noise(2, 3, 32, 32)), expected)
    before = copy.deepcopy(model.state_dict())
    trained(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(map(learns, changed))
    assert {name for name, _ in model.named_parameters() if learns(name)} <= changed  # a mask's every parameter
    assert any(name.endswith("mask.tail.norm2.running_mean") for name in changed)
    assert all(p.requires_grad == learns(name) for name, p in model.named_parameters())


def test_the_state_dict_is_the_plain_networks():
    model = trained(train_masks_only(live_in(tiny()))).eval()
    plain = tiny().eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(noise(2, 3, 32, 32)), model(noise(2, 3, 32, 32)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), convert_sync_batchnorm])
def test_copies_keep_the_trunks_statistics(copied):
    """Those of a moving average, of ``torch.save``, and timm's of synchronised norms."""
    model = copied(train_masks_only(live_in(tiny()))).train()
    norms = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)}
    assert any(norm.training for norm in norms.values())
    assert all(norm.training == learns(f"{name}.") for name, norm in norms.items())


def test_then_all():
    model = train_all(trained(train_masks_only(live_in(tiny()))))
    assert type(model) is ResAttn
    before = copy.deepcopy(model.state_dict())
    trained(model)
    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_gradient_checkpointing():
    plain = train_masks_only(live_in(tiny())).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.set_grad_checkpointing()
    for model in (plain, checkpointed):
        model(noise(4, 3, 32, 32)).square().sum().backward()
    for p, q in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        assert p.grad is None or torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-5)
    for p, q in zip(plain.buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("model", [tiny(mask_type="none"), tiny(depths=(0, 0)), torch.nn.Linear(2, 2)])
def test_without_masks(model):
    with pytest.raises(ValueError, match="no masks to train"):
        train_masks_only(model)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("call", [train_masks_only, train_all])
def test_a_wrapped_network_is_refused(call):
    class Derived(ResAttn):
        """As FSDP makes one."""

    derived = tiny()
    derived.__class__ = Derived
    for wrapped in (torch.nn.DataParallel(tiny()), derived):
        kind = type(wrapped)
        with pytest.raises(ValueError, match=f"{kind.__name__} is not a network of this package"):
            call(wrapped)
        assert type(wrapped) is kind


# --- the launcher's option ----------------------------------------------------------------------------------

SCRIPT = """
import sys
from timm.models import create_model, resnet18

model = create_model(sys.argv[1], **eval(sys.argv[2])).train()
print(sorted({name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad}))
print(all(p.requires_grad == (".mask." in n or n.startswith(("norm.", "head."))) for n, p in model.named_parameters()))
print(model.stem.training, model.norm.training)
import timm
print(all(p.requires_grad for p in timm.create_model("resnet18").parameters()))  # a teacher
second = timm.create_model(sys.argv[1], **eval(sys.argv[2]))  # of another fold
print(sorted({name.partition(".")[0] for name, p in second.named_parameters() if not p.requires_grad}))
"""
EXPECTED = ["['head', 'norm', 'stages']", "True", "False True", "True", "['stages', 'stem']"]
TINY = "dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1))"


def run(tmp_path, *argv):
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(timm_resattn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "timm_resattn", "run", *argv]
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("option", [["--train-only", "masks"], ["--train-only=masks"]])
def test_a_scripts_network_trains_its_masks_only(tmp_path, option):
    result = run(tmp_path, *option, "script.py", "resattn56_cifar", TINY)
    assert result.stdout.splitlines() == EXPECTED, result.stderr


@pytest.mark.parametrize("option", [[], ["--train-only=masks"]])
def test_a_scripts_exceptions_pass(tmp_path, option):
    (tmp_path / "raises.py").write_text("raise RuntimeError('in training')")
    result = run(tmp_path, *option, "raises.py")
    assert result.returncode == 1 and "Traceback" in result.stderr and "raises.py" in result.stderr


def test_a_scripts_network_without_masks(tmp_path):
    for name, options in (("resnet18", "{}"), ("resattn56_cifar", "dict(mask_type='none')")):
        result = run(tmp_path, "--train-only", "masks", "script.py", name, options)
        assert result.returncode == 1 and result.stdout == ""
        assert result.stderr.startswith("timm-resattn run: --train-only masks: ") and result.stderr.count("\n") == 1


def test_wrong_use(tmp_path, capsys):
    for argv in (["--train-only", "trunk", "script.py"], ["--train-only", "masks"], ["--train-only"]):
        with pytest.raises(SystemExit) as exit_info:
            main(["run", *argv])
        assert exit_info.value.code == 2
        assert "usage: timm-resattn run" in capsys.readouterr().err
    assert main(["run", "--train-only", "masks", str(tmp_path / "none.py")]) == 2
    assert "there is no file" in capsys.readouterr().err
