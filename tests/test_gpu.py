"""On a CUDA device: `pytest -m gpu`."""

import copy

import pytest
import timm
import torch
import torch.distributed as dist
from helpers import OPTIONS, images, live_in, relative_error, tiny

import timm_resattn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Convolutions in single precision, not in TF32, so that they can be compared with a CPU's."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_eager_is_the_cpus(options, memory_format):
    model = live_in(tiny(**options))
    x = images(45)
    with torch.inference_mode():
        expected = model(x)
        on_gpu = copy.deepcopy(model).cuda().to(memory_format=memory_format)
        found = on_gpu(x.cuda().contiguous(memory_format=memory_format)).cpu()
    assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["resattn56_cifar", "resattn92_cifar"])
def test_autocast_is_near_single_precision(name, dtype):
    model = timm.create_model(name, pretrained=True).eval().cuda()
    x = images(32, batch=16).cuda()
    with torch.inference_mode():
        expected = model(x)
        with torch.autocast("cuda", dtype):
            found = model(x)
    assert relative_error(found.float(), expected) < (0.1 if dtype == torch.bfloat16 else 0.02)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_training_with_and_without_checkpointing(options):
    if "drop_path_rate" in options:
        pytest.skip("drop path draws from the generator")
    model = tiny(**options).cuda().train()
    twin = copy.deepcopy(model)
    twin.set_grad_checkpointing()
    x = images(45, batch=4).cuda()
    for network in (model, twin):
        network(x).square().sum().backward()
    largest = max(p.grad.abs().max().item() for p in model.parameters())
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        # a norm's scale before another norm has no gradient but what rounding leaves
        least = max(1e-4 * p.grad.abs().max().item(), 1e-7 * largest)
        assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=least), name
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5), f"{name}: recomputing must not count a batch twice"


def test_autocast_with_a_scaler_trains():
    model = tiny().cuda().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda")
    x, labels = images(32, batch=8).cuda(), torch.arange(8).cuda() % 5
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = torch.nn.functional.cross_entropy(model(x), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0], losses


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_training_is_eager_training(checkpointing):
    model = tiny().double().cuda().train()  # in single precision small gradients are rounding
    model.set_grad_checkpointing(checkpointing)
    twin = copy.deepcopy(model)
    x = images(32, batch=4).double().cuda()
    for network in (torch.compile(model), twin):
        network(x).square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert relative_error(p.grad, q[1].grad) < 1e-8, name


def test_ddp_with_nccl(tmp_path):
    model = tiny().cuda().train()
    twin = copy.deepcopy(model)
    x = images(32, batch=4).cuda()
    dist.init_process_group("nccl", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(model, device_ids=[torch.cuda.current_device()])
        for _ in range(2):  # raises in the second step if a parameter got no gradient in the first
            parallel.zero_grad()
            parallel(x).square().sum().backward()
    finally:
        dist.destroy_process_group()
    for _ in range(2):
        twin.zero_grad()
        twin(x).square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:.*TensorFloat32")
def test_optimised_for_inference(compile, dtype):
    model = timm.create_model("resattn56_cifar", pretrained=True).eval().cuda()
    fast = timm_resattn.optimize_for_inference(model, dtype=dtype, compile=compile)
    for batch in (1, 4, 7):
        x = images(32, batch=batch).cuda()
        with torch.inference_mode():
            found = [fast(x.roll(shift, dims=-1)) for shift in range(4)]  # a graph reuses its memory
            expected = [model(x.roll(shift, dims=-1)) for shift in range(4)]
        error = max(relative_error(a.float(), b) for a, b in zip(found, expected, strict=True))
        assert error < (0.1 if dtype == torch.bfloat16 else 1e-2), batch
    assert bool(fast.programs) == compile
    assert all(program is not fast.model for program in fast.programs.values()), "it was not compiled"
