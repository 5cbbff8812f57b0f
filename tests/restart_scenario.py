"""What tests/test_processes.py runs under ``torchrun``: two processes train, with a checkpoint after each step.

    python restart_scenario.py FOLDER [kill]

With ``kill`` the second process ends by SIGKILL in the first attempt; the next attempt goes on from the checkpoint.
"""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from helpers import tiny
from torch.nn.parallel import DistributedDataParallel

STEPS, KILLED_IN = 6, 3


def main() -> None:
    folder, kill = Path(sys.argv[1]), sys.argv[2:] == ["kill"]
    attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], int(os.environ["RANK"])
    store = f"file://{folder.resolve()}/store{attempt}"  # the next attempt must not find the addresses of this one
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=int(os.environ["WORLD_SIZE"]))
    torch.manual_seed(0)
    model = tiny().train()
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    last, first = folder / "last.pt", 0
    if last.exists():
        state = torch.load(last)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    print(f"rank {rank} begins at step {first}", file=sys.stderr)
    for step in range(first, STEPS):
        if kill and rank == 1 and step == KILLED_IN and attempt == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        generator = torch.Generator().manual_seed(2 * step + rank)
        optimizer.zero_grad()
        parallel(torch.randn(2, 3, 16, 12, generator=generator)).square().mean().backward()
        optimizer.step()
        if rank == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, folder / "new.pt")
            (folder / "new.pt").replace(last)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
