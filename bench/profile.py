"""A flame graph of the fleet under short answers: python -m bench.profile [SECONDS]. Writes .bench/profile.svg."""

from __future__ import annotations

import subprocess
import sys

from bench.measure import RUN, Bench, NotMeasured, Options, own_folder
from bench.processes import Crew, cores, pinned, say
from bench.proxies import install
from bench.proxies.contenders import CONTENDERS
from bench.proxies.install import CACHE
from bench.scenarios import SCENARIOS

PICTURE = CACHE / "profile.svg"


def profile(seconds: float) -> int:
    """Record the fleet for so many seconds. Raises NotMeasured."""
    if reason := install.py_spy():
        raise NotMeasured(f"py-spy {reason}")
    fleet = next(contender for contender in CONTENDERS if contender.name == "fleet")
    short = next(scenario for scenario in SCENARIOS if scenario.name == "short_32")
    with Crew(RUN) as crew:
        bench = Bench(crew, Options(seconds=seconds + 2, warm_up=0.5), [fleet])
        running = bench.start(fleet, bench.servers(short.bed))
        assert running.process
        load = [str(CACHE / "load"), *bench.words(short, running)]
        crew.start("load", load, cores()[1])
        spy = [str(CACHE / "py-spy" / "bin" / "py-spy"), "record", "--rate", "500", "--nolineno"]
        where = ["--pid", str(running.process.popen.pid), "--duration", f"{seconds:.0f}", "--output", str(PICTURE)]
        return subprocess.run(pinned(cores()[1], [*spy, *where]), check=False).returncode


def main(words: list[str]) -> int:
    try:
        with own_folder():
            code = profile(float(words[0]) if words else 10.0)
    except NotMeasured as reason:
        say(f"no profile: {reason}")
        return 1
    except BlockingIOError:
        say("another run is under way")
        return 2
    say("py-spy failed; it may lack the right to trace (kernel.yama.ptrace_scope)" if code else f"written: {PICTURE}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
