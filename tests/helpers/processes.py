"""Start several processes that talk through gloo, as torchrun would."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
import torch.multiprocessing as mp

from utils import distributed

ROOT = Path(__file__).parents[2]


def environment(rank, world_size, port):
    """Return the variables that torchrun sets."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def run_together(function, folder, world_size=2):
    """Return what `function()` returns in each of `world_size` processes that have joined."""
    mp.spawn(_work, (function, folder, world_size, free_port()), nprocs=world_size)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]


def _work(rank, function, folder, world_size, port):
    os.environ |= environment(rank, world_size, port)
    torch.set_num_threads(1)
    distributed.init()
    torch.save(function(), folder / f"{rank}.pt")
    distributed.shutdown()


def start_together(command, folder, world_size=2):
    """Start `python *command` in `world_size` processes of one thread each; their outputs go to folder/<rank>.log."""
    port = free_port()
    processes = []
    for rank in range(world_size):
        env = os.environ | environment(rank, world_size, port) | {"OMP_NUM_THREADS": "1"}
        log = open(folder / f"{rank}.log", "w")  # noqa: SIM115 - the process owns it
        processes.append(subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env, stdout=log, stderr=log))
    return processes
