"""Work in a child process, which may die, hang or ask for too much memory."""

import json
import os
import resource
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY = 4 << 30  # bytes that a child may ask for, beyond what it has at its start


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def start(work: Callable[[Callable[[Any], None]], None], seconds: int = 120) -> tuple[int, int]:
    """Fork a child that does ``work(tell)``; returns its process id and where to read what it tells."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 70
    try:
        os.close(reading)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        with os.fdopen(writing, "w") as pipe:
            work(lambda value: print(json.dumps(value), file=pipe, flush=True))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def finish(pid: int, reading: int) -> tuple[list[Any], int]:
    """What the child told, and its exit code, negative if a signal ended it."""
    with os.fdopen(reading) as pipe:
        told = [json.loads(line) for line in pipe if line.endswith("\n")]
    return told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(work: Callable[[Callable[[Any], None]], None], seconds: int = 120) -> tuple[list[Any], int]:
    """What ``work(tell)`` tells and the exit code."""
    return finish(*start(work, seconds))


def killed(work: Callable[[Callable[[Any], None]], None], delay: float, number: int) -> int:
    """Start ``work``, send a signal after a delay, and return the exit code."""
    pid, reading = start(work)
    time.sleep(delay)
    os.kill(pid, number)
    return finish(pid, reading)[1]


def memory_of(work: Callable[[], Any]) -> tuple[Any, int]:
    """What ``work`` returns, and by how many bytes the process's peak rose."""
    before = _resident()
    return work(), _resident() - before
