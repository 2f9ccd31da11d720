"""The benchmark's arithmetic, reports, configurations and command line."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from bench.processes import Crew
from bench.proxies import configs, install
from bench.proxies.contenders import CONTENDERS, QUICK, peer
from bench.proxies.install import program
from bench.reporting import report
from bench.reporting.results import Results, Spread, closed_metrics, spread, stream_metrics
from bench.reporting.targets import TARGETS, Target, judge, verdicts
from bench.run import NAMES, beds, contenders, options, parse, scenarios
from bench.scenarios import FAILING, REQUESTS, SCENARIOS, Bed, Scenario, Streams
from fleet.config import load

ROOT = Path(__file__).parent.parent.parent
URLS = ["http://127.0.0.1:19001", "http://127.0.0.2:19001"]
CLOSED = {
    "mode": "closed",
    "rate": 1234.5,
    "latency_us": {"p50": 100, "p90": 200, "p99": 900, "max": 1000},
    "errors": {"status": 2, "connect": 0, "reset": 1, "short": 0, "timeout": 0},
}
STREAMED = {
    "mode": "streams",
    "streams": 1000,
    "completed": 998,
    "rate": 29990.0,
    "first_token_us": {"p50": 33000, "p90": 34000, "p99": 35000, "max": 36000},
    "gap_us": {"p50": 34000, "p90": 34100, "p99": 35000, "max": 40000},
    "errors": {"status": 1, "connect": 0, "reset": 0, "short": 0, "timeout": 1},
}


def measured() -> Results:
    results = Results()
    for ours, theirs in ((60.0, 100.0), (30.0, 120.0), (55.0, 110.0)):
        results.add("short_32", "nginx", {"rate": theirs, "p50_us": 100, "p99_us": 300, "errors": 0})
        results.add("short_32", "fleet", {"rate": ours, "p50_us": 200, "p99_us": 400, "errors": 1})
    results.skip("short_32", "haproxy", "haproxy is not installed (apt-get install haproxy)")
    results.add("cold_start", "fleet", {"ms": 620.0})
    results.add("failing", "fleet", {"rate": 10.0, "errors": 0})
    return results


# ---- arithmetic


def test_a_spread_is_the_median_with_its_range() -> None:
    assert spread([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    assert spread([]) is None


def test_ratios_are_taken_round_by_round() -> None:
    assert measured().ratio("short_32", "rate", "fleet", "nginx") == Spread(0.5, 0.25, 0.6)


def test_a_ratio_against_nothing_is_no_ratio() -> None:
    results = Results()
    results.add("short_32", "fleet", {"rate": 1})
    results.add("short_32", "nginx", {"rate": 0})
    assert results.ratio("short_32", "rate", "fleet", "nginx") is None
    assert results.ratio("short_32", "rate", "fleet", "olla") is None


def test_differences_are_taken_round_by_round() -> None:
    assert measured().difference("short_32", "p50_us", "fleet", "nginx") == Spread(100, 100, 100)


def test_the_lines_of_the_load_generator_become_figures() -> None:
    closed, streamed = closed_metrics(CLOSED), stream_metrics(STREAMED)
    assert (closed["rate"], closed["p99_us"], closed["errors"]) == (1234.5, 900, 3)
    assert (streamed["first_p50_us"], streamed["gap_max_us"], streamed["errors"]) == (33000, 40000, 2)


@pytest.mark.parametrize(
    ("less", "measured", "words"),
    [
        (False, 0.5, "aim met"),
        (False, 0.496, "aim met"),
        (False, 0.3, "must met"),
        (False, 0.2, "MISSED"),
        (True, 0.2, "aim met"),
        (True, 0.3, "must met"),
        (True, 0.6, "MISSED"),
    ],
)
def test_a_verdict(less: bool, measured: float, words: str) -> None:
    must, aim = (0.5, 0.25) if less else (0.25, 0.5)
    target = Target("", "", must, aim, "x", lambda results: None, less_is_better=less)
    assert judge(target, measured) == words


def test_every_target_has_a_verdict_or_a_reason() -> None:
    told = list(verdicts(measured()))
    assert [verdict.target for verdict in told] == list(TARGETS)
    assert all(verdict.words for verdict in told)
    assert sum(verdict.measured is not None for verdict in told) == 3


def test_errors_are_those_of_the_worst_round() -> None:
    results = Results()
    for errors in (0.0, 3.0, 0.0):
        results.add("failing", "fleet", {"rate": 1.0, "errors": errors})
    [verdict] = [verdict for verdict in verdicts(results) if verdict.measured]
    assert (verdict.measured, verdict.words) == (Spread(3.0, 0.0, 3.0), "MISSED")


def test_what_is_missing_says_why() -> None:
    results = measured()
    assert results.reason("short_32", "fleet", "haproxy").endswith("(apt-get install haproxy)")
    assert results.reason("short_32", "fleet", "olla") == "olla was not part of this run"
    assert results.reason("burst_32", "fleet", "olla") == "not part of this run"


def test_targets_ask_for_what_is_measured() -> None:
    assert {target.scenario for target in TARGETS} - {""} <= set(NAMES)


# ---- reports


def test_the_report_shows_ratios_ranges_and_what_is_missing() -> None:
    page = report.render(measured(), {"cpu": "some"}, {"rounds": "3"})
    assert report.NOTE in page
    assert "| fleet | **0.50x (0.25 to 0.60)** | **2x** | 55 (30 to 60) | 0.20 | 0.40 | 3 |" in page
    assert "* haproxy: not measured: haproxy is not installed (apt-get install haproxy)" in page
    assert "| 0.25x | 0.50x | 0.50x (0.25 to 0.60) | aim met |" in page
    assert "| <= 1 s | <= 0.50 s | 0.62 s | must met |" in page


def test_the_report_is_written_for_people_and_for_programs(tmp_path: Path) -> None:
    page = report.write(measured(), {}, {}, tmp_path)
    told = json.loads((tmp_path / "latest.json").read_text())
    assert page.read_text().startswith("# Benchmark")
    assert told["samples"]["short_32"]["fleet"]["rate"] == [60, 30, 55]
    assert len(told["targets"]) == len(TARGETS)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (1234, "1,234"), (0.123, "0.12"), (12.34, "12.3"), (123456.7, "123,457")]
)
def test_numbers_show_the_digits_that_matter(value: float, text: str) -> None:
    assert report.amount(value) == text


# ---- configurations


def test_the_fleets_configuration_is_one_the_fleet_takes() -> None:
    config = load(configs.fleet((1, 2, 3), URLS), {}, {}, source="config.yml").config
    assert [server.max_concurrency for server in config.servers] == [1024, 1024]


@pytest.mark.parametrize("root", [True, False])
def test_nginx_keeps_its_connections_and_buffers_nothing(root: bool) -> None:
    text = configs.nginx(8080, URLS, root=root)
    assert "server 127.0.0.1:19001; server 127.0.0.2:19001; keepalive 512;" in text
    assert "proxy_buffering off" in text
    assert text.count("{") == text.count("}")
    assert ("user root;" in text) is root


def test_haproxy_knows_every_server() -> None:
    text = configs.haproxy(8080, URLS)
    assert "server s0 127.0.0.1:19001\n" in text
    assert "server s1 127.0.0.2:19001\n" in text
    assert "nbthread 1" in text


def test_litellm_and_olla_know_every_server() -> None:
    litellm, olla = yaml.safe_load(configs.litellm(URLS)), yaml.safe_load(configs.olla(8080, URLS))
    bases = [deployment["litellm_params"]["api_base"] for deployment in litellm["model_list"]]
    assert bases == [f"{url}/v1" for url in URLS]
    assert [endpoint["url"] for endpoint in olla["discovery"]["static"]["endpoints"]] == URLS


def test_a_missing_program_says_how_to_install_it() -> None:
    assert program("no-such-program")() == "no-such-program is not installed (apt-get install no-such-program)"


# ---- scenarios and the command line


def test_requests_are_whole_and_json() -> None:
    for request in REQUESTS.values():
        head, _, body = request.wire("/prefix").partition(b"\r\n\r\n")
        assert head.startswith(f"POST /prefix{request.path} HTTP/1.1\r\n".encode())
        assert f"Content-Length: {len(body)}".encode() in head
        assert json.loads(body)["model"]


def test_streams_outlive_the_counting() -> None:
    load = Streams(4000, 1000)
    assert load.tokens(3.0) / 30 >= load.opening() + 3.0
    assert load.timeout(3.0) > load.opening() + load.tokens(3.0) / 30


def test_scenarios_with_the_same_servers_share_them() -> None:
    groups = dict(beds(NAMES, 3.0))
    assert sum(len(group) for group in groups.values()) == len(SCENARIOS)
    assert [scenario.name for scenario in groups[FAILING]] == ["failing"]
    assert len(groups[Bed()]) == 8


def test_quick_leaves_out_what_takes_long() -> None:
    quick, full = parse(["--quick"]), parse([])
    assert set(scenarios(quick)) < set(scenarios(full)) == set(NAMES)
    assert options(quick).rounds == 1
    assert [contender.name for contender in contenders(quick)] == list(QUICK)
    assert contenders(full) == list(CONTENDERS)


def test_what_is_asked_for_wins() -> None:
    chosen = parse(["--quick", "--only", "idle", "--contenders", "olla,fleet", "--rounds", "7", "--seconds", "9"])
    assert scenarios(chosen) == ["idle"]
    assert [contender.name for contender in contenders(chosen)] == ["fleet", "olla"]
    assert (options(chosen).rounds, options(chosen).seconds) == (7, 9.0)


@pytest.mark.parametrize("words", [["--only", "nothing"], ["--contenders", "nobody"], ["--peer", "a=http://b:1"]])
def test_wrong_words_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parse(words)
    assert refused.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_peer_is_a_name_and_a_url() -> None:
    other = peer("other=http://127.0.0.1:5100/base/")
    assert (other.name, other.prefix, other.target([])) == ("other", "/base", "127.0.0.1:5100")
    with pytest.raises(ValueError, match="name=http"):
        peer("127.0.0.1:5100")


# ---- processes


def test_a_crew_ends_with_everything_its_members_started(tmp_path: Path) -> None:
    started = []

    def work() -> None:
        with Crew(tmp_path) as crew:
            started.append(crew.start("shell", ["sh", "-c", "sleep 60 & echo ready; sleep 60"], 0))
            while "ready" not in started[0].log.read_text():
                time.sleep(0.005)
            assert len(list(started[0].members())) >= 2
            assert started[0].rss_kib() > 0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    process = started[0]
    assert process.popen.returncode == -signal.SIGTERM
    end = time.monotonic() + 5.0  # killed is not yet gone: on a busy core it dies when it gets its turn
    while [fields for fields in process.members() if fields[0] != "Z"]:
        assert time.monotonic() < end
        time.sleep(0.005)


# ---- the house


@pytest.mark.parametrize("path", sorted((ROOT / "bench").glob("*.py")), ids=lambda path: path.name)
def test_files_stay_small(path: Path) -> None:
    assert path.read_text().count("\n") <= 400


def test_the_readme_names_every_module_it_speaks_of() -> None:
    named = re.findall(r"`([\w/]+\.(?:py|c))`", (ROOT / "bench" / "README.md").read_text())
    assert named
    assert all((ROOT / "bench" / name).exists() for name in named)


def test_no_scenario_is_named_twice() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(isinstance(scenario, Scenario) for scenario in SCENARIOS)


def stand_in(folder: Path, script: str) -> Path:
    """A program called `go`."""
    path = folder / "go"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "words", "built"),
    [
        ('echo "go: lookup failed" >&2; exit 1', "is not to be had from here", False),
        ('test "$1" = list || { echo "one" >&2; echo "go: needs Go 99" >&2; exit 1; }', "go: needs Go 99", True),
    ],
)
def test_olla_is_built_only_if_its_module_is_to_be_had_and_one_line_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str, built: bool
) -> None:
    told: list[str] = []
    stand_in(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(install, "OLLA", tmp_path / "none" / "olla")
    monkeypatch.setattr(install, "say", told.append)
    reason = install.olla.__wrapped__()
    assert reason is not None
    assert words in reason
    assert "\n" not in reason
    assert bool(told) == built
