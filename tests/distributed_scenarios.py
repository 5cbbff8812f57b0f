"""What tests/test_distributed.py runs in each of its processes: ``torchrun`` hands in rank and size."""

import copy
import os
import sys

import torch
import torch.distributed as dist
from helpers import OPTIONS, tiny
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from timm_resattn import AttentionModule
from timm_resattn.units import UNITS

UNIT_CLASSES = tuple(UNITS.values())


def _batches(size):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(2, 3, 16, 12, generator=generator) for _ in range(size)]


def _step(model, x):
    model(x).square().mean().backward()


def _expected(model, batches):
    """Gradients of the whole: the mean over the processes', each with its own batch's statistics."""
    twins = [copy.deepcopy(model) for _ in batches]
    for twin, x in zip(twins, batches, strict=True):
        _step(twin, x)
    names = [name for name, _ in model.named_parameters()]
    grads = zip(*[[p.grad for p in twin.parameters()] for twin in twins], strict=True)
    return {name: torch.stack(grad).mean(0) for name, grad in zip(names, grads, strict=True)}


def _assert_close(grads, expected):
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        assert torch.allclose(grad, expected[name], rtol=1e-4, atol=1e-5 * expected[name].abs().max() + 1e-7), name


def ddp(model, batches, rank):
    """DistributedDataParallel, which raises in the second step when a parameter got no gradient in the first."""
    expected = _expected(model, batches)
    parallel = DistributedDataParallel(model, find_unused_parameters=False)
    for _ in range(2):
        parallel.zero_grad()
        _step(parallel, batches[rank])
        _assert_close({name: p.grad for name, p in model.named_parameters()}, expected)


def _fsdp(model, batches, rank, wrapped):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.fsdp import fully_shard

    plain = copy.deepcopy(model)
    expected = _expected(model, batches)
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    for module in reversed(list(model.modules())):  # inner ones first
        if wrapped(module):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        _step(model, batches[rank])
        _assert_close({name: p.grad.full_tensor() for name, p in model.named_parameters()}, expected)
    optimizer.step()

    state_dict = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    # which hands over all of it to the first process alone
    if rank == 0:
        initial = {name: p.detach().clone() for name, p in plain.named_parameters()}
        plain.load_state_dict(state_dict, strict=True)
        for name, p in plain.named_parameters():
            assert torch.allclose(p, initial[name] - 0.01 * expected[name], atol=1e-5), name
    model.eval()
    plain.eval()
    with torch.no_grad():
        logits = model(batches[0])
        assert rank > 0 or torch.allclose(logits, plain(batches[0]), rtol=1e-5, atol=1e-5)


def fsdp_blocks(model, batches, rank):
    """FSDP2 on each block of the stages: units and Attention Modules."""
    blocks = {id(block) for stage in model.stages for block in stage.blocks}
    _fsdp(model, batches, rank, lambda module: id(module) in blocks)


def fsdp_units(model, batches, rank):
    """FSDP2 on each residual unit, those in the masks too."""
    _fsdp(model, batches, rank, lambda module: isinstance(module, UNIT_CLASSES))


def fsdp_parts(model, batches, rank):
    """FSDP2 on everything that holds parameters and is no single layer."""
    parts = (*UNIT_CLASSES, AttentionModule, nn.Sequential)

    def wrapped(module):
        if module is model:
            return False
        named = type(module).__module__.startswith("timm_resattn.") or isinstance(module, parts)
        return named and next(module.parameters(), None) is not None

    _fsdp(model, batches, rank, wrapped)


def main() -> None:
    """Every kind of network, with and without gradient checkpointing, in one scenario."""
    scenario, *kinds = sys.argv[1:]
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for kind in kinds:
        for checkpointing in (False, True):
            torch.manual_seed(0)
            model = tiny(**OPTIONS[kind]).train()
            model.set_grad_checkpointing(checkpointing)
            print(f"{scenario}: {kind=}, {checkpointing=}, {rank=}", file=sys.stderr)
            globals()[scenario](model, _batches(dist.get_world_size()), rank)
    dist.barrier()
    dist.destroy_process_group()
    sys.stderr.flush()
    os._exit(0)  # at a regular end torch may abort, its threads not joined


if __name__ == "__main__":
    main()
