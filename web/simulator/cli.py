"""What `fleet sim` runs: one simulated server in the foreground."""

from __future__ import annotations

import errno
import signal
import sys
from functools import partial
from typing import TextIO

import trio

from fleet.simulator import Profile
from web.simulator.engine.host import SimHost, make_host
from web.simulator.tcp import serve_sim

PORT_TAKEN = 3
BAD_ARGUMENT = 2


def run_sim(
    *,
    port: int,
    id: str,
    models: str,
    slots: int,
    vram: int,
    tokens_per_second: float,
    prefill_per_second: float,
    load_seconds: float,
    faults: list[str],
    seed: int = 0,
    address: str = "127.0.0.1",
) -> int:
    """Serve until SIGINT or SIGTERM; the exit code (0 stopped, 2 bad argument, 3 port taken).

    `models` is `name:tag:size,...`, for instance `llama3:8b:4.7GB,nomic-embed-text:latest:274MB` (see
    `fleet.simulator.parse_models`); names with `embed` in them are embedding models. `faults` as in `engine.faults`.
    `vram` in bytes, rates in tokens per second and slot, `load_seconds` for every model load.
    """
    profile = Profile(
        vram=vram,
        slots=slots,
        load_seconds=load_seconds,
        tokens_per_second=tokens_per_second,
        prefill_per_second=prefill_per_second,
    )
    try:
        host = make_host(models, profile, id=id, faults=faults, seed=seed)
    except ValueError as error:
        return _complain(f"fleet sim: {error}", BAD_ARGUMENT)
    return trio.run(_serve, host, port, address)


async def _serve(host: SimHost, port: int, address: str) -> int:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            try:
                bound: int = await nursery.start(partial(serve_sim, host, port, address=address))
            except OSError as error:
                why = f"cannot be used: {error.strerror or error}"
                if error.errno == errno.EADDRINUSE:
                    why = "is already in use; choose another one"
                return _complain(f"fleet sim: port {port} on {address} {why}", PORT_TAKEN)
            names = ", ".join(file.name for file in host.server.shelf) or "no models"
            _say(sys.stdout, f"SIMULATED Ollama {host.id!r} on http://{address}:{bound} with {names}")
            async for _ in signals:
                break
            nursery.cancel_scope.cancel()
    return 0


def _complain(sentence: str, code: int) -> int:
    _say(sys.stderr, sentence)
    return code


def _say(where: TextIO, sentence: str) -> None:
    where.write(sentence + "\n")
    where.flush()
