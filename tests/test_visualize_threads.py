"""Masks are recorded by several threads at once, each its own."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from helpers import tiny

from timm_resattn.visualize import capture_masks, record_attention

NAMES = ["stages.0.blocks.1", "stages.1.blocks.1"]


def test_threads_record_their_own():
    """A network may serve several, and others may run it meanwhile."""
    model = tiny().eval()
    images = torch.rand(4, 1, 3, 16, 16)
    wanted = [record_attention(model, x) for x in images]
    stop = threading.Event()

    def run():
        runs = 0
        with torch.no_grad():
            while not (stop.is_set() and runs):
                model(torch.rand(1, 3, 16, 16))
                runs += 1
        return runs

    with ThreadPoolExecutor(5) as pool:
        others = pool.submit(run)
        try:
            found = list(pool.map(lambda i: record_attention(model, images[i % 4]), range(40)))
        finally:
            stop.set()
        assert others.result() > 0
    for i, record in enumerate(found):
        for name in NAMES:
            assert torch.allclose(record.masks[name], wanted[i % 4].masks[name], atol=1e-6)
            assert torch.allclose(record.gradients[name], wanted[i % 4].gradients[name], atol=1e-6)
    if hasattr(torch.compiler, "set_stance"):
        assert torch._dynamo.eval_frame._stance.stance == "default"


def test_a_worker_may_record_within_anothers_block():
    model = tiny().eval()

    def record(x):
        with capture_masks(model) as masks:
            model(x)
        return masks

    mine, others = torch.rand(2, 3, 16, 16), torch.rand(3, 3, 16, 16)
    with ThreadPoolExecutor(1) as pool, capture_masks(model) as masks:
        model(mine)
        found = pool.submit(record, others).result(60)
    for images, recorded in ((mine, masks), (others, found)):
        wanted = record(images)
        assert list(recorded) == NAMES and all(torch.equal(recorded[name], wanted[name]) for name in NAMES)
    if hasattr(torch.compiler, "set_stance"):
        assert torch._dynamo.eval_frame._stance.stance == "default"
