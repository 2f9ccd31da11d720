"""What a server is asked to do, how far it has come, and what it reports at the end."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from fleet.simulator.files import ModelFile
from fleet.simulator.text import count_tokens

if TYPE_CHECKING:
    from fleet.simulator.runner import Runner

LOOKUP: Final = 0.001
"""Seconds a request spends on finding its warm runner: Ollama never reports a load of zero."""


class RunnerOptions(NamedTuple):
    """What forces a reload when it differs from the runner that is loaded."""

    num_ctx: int = 4096
    num_batch: int = 512
    num_gpu: int = -1
    main_gpu: int = 0
    use_mmap: bool | None = None
    num_thread: int = 0
    draft_num_predict: int = 0
    shift: bool = True


@dataclass(frozen=True, slots=True)
class Work:
    """One request to the scheduler. No tokens and no prompt: the model is only loaded."""

    file: ModelFile
    options: RunnerOptions
    keep_alive: float
    prompt: str = ""
    prompt_tokens: int = 0
    tokens: tuple[str, ...] = ()
    length_limited: bool = False
    held: bool = False
    """The slot is kept until `SimServer.finish`: a slow reader holds its slot, as in Ollama."""
    automatic: bool = False
    """Nobody named the context, so whatever the server made of it will do."""
    poison: bool = False
    """It kills its runner as soon as its prompt is evaluated."""


class Stage(enum.Enum):
    """Where a job is. PENDING waits for the scheduler, QUEUED for a slot of a loaded runner."""

    PENDING = enum.auto()
    LOADING = enum.auto()
    QUEUED = enum.auto()
    PREFILL = enum.auto()
    DECODE = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()
    LEFT = enum.auto()


OVER: Final = frozenset({Stage.DONE, Stage.FAILED, Stage.LEFT})


class JobFailure(enum.Enum):
    """Why a job FAILED."""

    CRASH = "the runner died"
    MEMORY = "the load ran out of memory"
    RESTART = "the server was restarted"


@dataclass(eq=False, slots=True)
class SimulatedJob:
    """A request under way. All times are seconds on the caller's clock."""

    work: Work
    submitted_at: float
    stage: Stage = Stage.PENDING
    wake_at: float = math.inf
    """When this job itself would go on; infinite while it depends on others, who then call `notify`."""
    notify: Callable[[], None] = field(default=lambda: None)
    runner: Runner | None = None
    attached_at: float = 0.0
    prefill_at: float = 0.0
    decode_at: float = 0.0
    ends_at: float = 0.0
    finished_at: float = 0.0
    step: float = 0.0
    cached_tokens: int = 0
    slot: int | None = None
    """Its slot's number, where each has a cache of its own."""
    lone_step: float = 0.0
    """Seconds per token if it were alone; `step` is what they are in present company."""
    paced_at: float = 0.0
    paced_tokens: float = 0.0
    """How many tokens were out at `paced_at`, when `step` last changed."""
    failure: JobFailure | None = None

    def fail(self, why: JobFailure, now: float) -> None:
        self.failure, self.finished_at = why, now
        self.enter(Stage.FAILED)

    def pace(self, crowding: float, now: float) -> None:
        """Go on decoding at another pace from now on."""
        if self.step:
            self.paced_tokens += (now - self.paced_at) / self.step
        self.paced_at, self.step = now, self.lone_step * crowding
        self.ends_at = now + (len(self.work.tokens) - self.paced_tokens) * self.step

    def enter(self, stage: Stage, wake_at: float = math.inf) -> None:
        """Move on and tell whoever waits."""
        self.stage, self.wake_at = stage, wake_at
        self.notify()

    def token_at(self, index: int) -> float:
        """When token `index` is there at the present pace; known once the job decodes."""
        return self.paced_at + (index + 1 - self.paced_tokens) * self.step

    @property
    def evaluated(self) -> int:
        """Prompt tokens that had to be computed: all but the cached ones, and always the last."""
        return max(1, self.work.prompt_tokens - self.cached_tokens)


def prompt_size(prompt: str) -> int:
    """Tokens of a prompt, zero for none."""
    return count_tokens(prompt) if prompt else 0


@dataclass(frozen=True, slots=True)
class Stats:
    """Nanoseconds and counts of a finished job; `total` is exactly the sum of the four others."""

    total: int
    load: int
    wait: int
    prompt_eval: int
    eval: int
    prompt_tokens: int
    tokens: int


def stats_of(job: SimulatedJob) -> Stats:
    """The statistics of a job that is DONE. Waiting is what Ollama counts in the total only."""
    if not job.work.prompt_tokens:
        load = _ns(job.attached_at - job.submitted_at) + _ns(LOOKUP)
        return Stats(load, load, 0, 0, 0, 0, 0)
    load = _ns(job.attached_at - job.submitted_at) + _ns(LOOKUP)
    prefill = _ns(job.decode_at - job.prefill_at - LOOKUP)
    decode = _ns(job.ends_at - job.decode_at)
    wait = _ns(job.prefill_at - job.attached_at) + _ns(job.finished_at - job.ends_at)
    total = load + wait + prefill + decode
    return Stats(total, load, wait, prefill, decode, job.work.prompt_tokens, len(job.work.tokens))


def _ns(seconds: float) -> int:
    return max(0, round(seconds * 1e9))
