"""Measuring: one load run against one contender, and the lives of servers and contenders around it."""

from __future__ import annotations

import fcntl
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from bench.processes import Crew, Process, cores, free_port, listens, pinned, say
from bench.proxies.contenders import Contender
from bench.proxies.install import CACHE
from bench.reporting.results import Results, closed_metrics, stream_metrics
from bench.scenarios import REQUESTS, SETTLE, Bed, Closed, Scenario, Streams

RUN = CACHE / "run"


class NotMeasured(Exception):
    """Why a contender has no figures; shown in the report."""


class ToolFailed(Exception):
    """The fake server or the load generator does not work: the run makes no sense."""


@dataclass(frozen=True)
class Options:
    rounds: int = 3
    seconds: float = 2.0
    warm_up: float = 0.3
    steady: float = 3.0
    idle_seconds: float = 20.0
    quick: bool = False
    server_port: int = 0  # 0: any; peers need one they know


@dataclass(frozen=True)
class Running:
    """A contender that answers at a target."""

    contender: Contender
    target: str
    process: Process | None = None
    dashboard: str = ""


@dataclass
class Bench:
    """What a run has at hand."""

    crew: Crew
    options: Options
    contenders: Sequence[Contender]
    results: Results = field(default_factory=Results)

    # ---- servers and contenders

    def servers(self, bed: Bed) -> list[str]:
        """Start the servers of a bed, the failing one as a process of its own; their URLs. Raises ToolFailed."""
        words, good = [str(bed.tokens), str(bed.interval_us)], bed.addresses - bool(bed.fail_one_in)
        port = self._backend("servers", self.options.server_port, [*words, "-a", str(good)])
        urls = [f"http://127.0.0.{i + 1}:{port}" for i in range(good)]
        if bed.fail_one_in:
            port = self._backend("failing-server", 0, [*words, "-f", str(bed.fail_one_in)])
            urls.append(f"http://127.0.0.1:{port}")
        return urls

    def _backend(self, name: str, port: int, words: list[str]) -> int:
        if port and listens(port):
            raise ToolFailed(f"port {port}, where the fake servers should listen, is taken")
        port = port or free_port()
        process = self.crew.start(name, [str(CACHE / "backend"), str(port), *words], cores()[1])
        while not listens(port):
            if process.popen.poll() is not None:
                raise ToolFailed(process.last_words())
            time.sleep(0.002)
        return port

    def start(self, contender: Contender, servers: Sequence[str]) -> Running:
        """Start a contender and wait until it answers a request. Raises NotMeasured."""
        if reason := contender.missing():
            raise NotMeasured(reason)
        if not contender.prepare:
            return self._answering(contender, contender.target(servers), None)
        folder = RUN / contender.name
        folder.mkdir(parents=True, exist_ok=True)
        launch = contender.prepare(folder, servers)
        process = self.crew.start(contender.name, launch.command, cores()[0], launch.env, folder)
        try:
            end = time.monotonic() + contender.patience
            while not (target := launch.target()):
                _keep_hoping(process, end, "did not open its socket")
            return replace(self._answering(contender, target, process), dashboard=launch.dashboard)
        except NotMeasured:
            self.crew.stop(process)
            raise

    def _answering(self, contender: Contender, target: str, process: Process | None) -> Running:
        end = time.monotonic() + contender.patience
        request = "short" if "ollama" in contender.dialects else "openai_short"
        words = ["streams", target, self.request(request, contender), "1", "1000", "1", "-t", "5"]
        while not (line := self.load(words, request))["completed"]:
            kinds = [kind for kind, count in line["errors"].items() if count]
            _keep_hoping(process, end, f"gave no good answer ({kinds[0]})")
        return Running(contender, target, process)

    # ---- load

    def request(self, name: str, contender: Contender) -> str:
        """The file with a request as this contender wants it."""
        path = RUN / "requests" / f"{name}{contender.prefix.replace('/', '-')}.http"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(REQUESTS[name].wire(contender.prefix))
        return str(path)

    def load(self, words: list[str], request: str) -> Mapping[str, Any]:
        """Run the load generator on its core and read what it prints. Raises ToolFailed."""
        command = pinned(cores()[1], [str(CACHE / "load"), *words, "-e", REQUESTS[request].end])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolFailed(done.stderr.strip() or f"exit code {done.returncode}")
        line: Mapping[str, Any] = json.loads(done.stdout)
        return line

    def words(self, scenario: Scenario, running: Running) -> list[str]:
        """The command line of the load generator."""
        head = [running.target, self.request(scenario.request, running.contender)]
        load, options = scenario.load, self.options
        if isinstance(load, Closed):
            return ["closed", *head, str(load.connections), str(options.seconds), "-w", str(options.warm_up)]
        times = [str(load.per_second), str(options.steady), "-s", str(SETTLE), "-t", str(load.timeout(options.steady))]
        return ["streams", *head, str(load.count), *times]

    def measure(self, scenario: Scenario, running: Running) -> None:
        """One measurement, noted. Raises ToolFailed."""
        line = self.load(self.words(scenario, running), scenario.request)
        metrics = stream_metrics(line) if isinstance(scenario.load, Streams) else closed_metrics(line)
        self.results.add(scenario.name, running.contender.name, metrics)
        figures = f"{metrics['rate']:12,.0f}/s   errors {metrics['errors']:.0f}"
        say(f"  {scenario.name:16} {running.contender.name:12} {figures}")

    # ---- scenarios

    def run_bed(self, bed: Bed, scenarios: Sequence[Scenario]) -> None:
        """All scenarios over the same servers: round after round, in each the contenders in turn."""
        running = self._start_all(self.servers(bed), scenarios)
        for scenario in scenarios:
            able = [one for one in running if self.fits(scenario, one.contender)]
            for one in able * self.options.rounds:
                self.measure(scenario, one)

    def _start_all(self, urls: Sequence[str], scenarios: Sequence[Scenario]) -> list[Running]:
        running = []
        for contender in self.contenders:
            wanted = [scenario for scenario in scenarios if self.fits(scenario, contender)]
            try:
                if wanted:
                    running.append(self.start(contender, urls))
            except (NotMeasured, OSError) as reason:
                for scenario in wanted:
                    self.results.skip(scenario.name, contender.name, str(reason))
                say(f"  {contender.name}: not measured: {reason}")
        return running

    def fits(self, scenario: Scenario, contender: Contender) -> bool:
        """Whether it makes sense to measure them together; if not, the reason is noted."""
        reason = None
        if scenario.dialect not in contender.dialects:
            reason = "has no such routes"
        elif contender.name in scenario.too_slow:
            reason = "too slow: most streams would time out"
        elif (contender.url or contender.name == "bare") and scenario.bed.fail_one_in:
            reason = "knows one server only"
        if reason:
            self.results.skip(scenario.name, contender.name, reason)
        return reason is None


def _keep_hoping(process: Process | None, end: float, trouble: str) -> None:
    if process and process.popen.poll() is not None:
        raise NotMeasured(f"ended at once: {process.last_words()}")
    if time.monotonic() > end:
        raise NotMeasured(f"{trouble} in time")
    time.sleep(0.002)


@contextmanager
def own_folder() -> Iterator[None]:
    """The folder of the run, without the requests of an earlier one. Raises BlockingIOError if another run has it."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in RUN.glob("requests/*.http"):
            path.unlink()
        yield
