"""`fleet keys`: what it prints, where, and how it exits."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from actors.security import key_file
from fleet.security.api_keys import digest_of
from fleet.security.roles import Role
from web.cli import main

FILE = "keys.jsonl"
KEY = re.compile(r"fleet_[A-Za-z0-9_-]{43}\n")


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yml").write_text(f"security: {{keys_file: {FILE}, keys: [{{name: fixed, key: hunter2hunter2}}]}}\n")


def fleet(*arguments: str) -> Result:
    return CliRunner().invoke(main.app, ["keys", *arguments])


def test_a_new_key_is_printed_once_alone_and_only_its_digest_is_kept() -> None:
    ended = fleet("add", "ci", "--role", "operator")
    assert ended.exit_code == 0
    assert KEY.fullmatch(ended.stdout)
    (kept,) = key_file.read(FILE)
    key = ended.stdout.strip()
    assert (kept.name, kept.role, kept.sha256, kept.revoked) == ("ci", Role.OPERATOR, digest_of(key), None)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", kept.created)
    assert key not in Path(FILE).read_text()
    assert key not in ended.stderr
    assert stat.S_IMODE(Path(FILE).stat().st_mode) == 0o600
    assert key not in fleet("list").output


def test_a_key_without_a_word_about_its_role_is_a_clients() -> None:
    fleet("add", "ci")
    assert key_file.read(FILE)[0].role is Role.CLIENT


def test_no_two_keys_are_alike() -> None:
    made = [fleet("add", f"k{at}").stdout for at in range(5)]
    assert len(set(made)) == 5


def test_the_list_shows_names_roles_and_moments() -> None:
    fleet("add", "ci")
    fleet("add", "ops", "--role", "admin")
    fleet("revoke", "ci")
    ended = fleet("list")
    assert (ended.exit_code, ended.stderr) == (0, "")
    head, first, second = ended.stdout.splitlines()
    assert head.split() == ["NAME", "ROLE", "CREATED", "REVOKED"]
    assert first.split()[:2] == ["ci", "client"]
    assert re.fullmatch(r"20\S+Z", first.split()[3])
    assert second.split()[0::3] == ["ops", "-"]
    assert not re.search(r"[0-9a-f]{64}", ended.output)


def test_a_revoked_key_stays_in_the_file_and_its_name_is_free_again() -> None:
    fleet("add", "ci")
    assert fleet("revoke", "ci").exit_code == 0
    assert fleet("add", "ci").exit_code == 0
    assert [each.revoked is None for each in key_file.read(FILE)] == [False, True]


def test_the_list_of_a_file_that_is_not_there_is_empty() -> None:
    ended = fleet("list")
    assert (ended.exit_code, len(ended.stdout.splitlines())) == (0, 1)


WRONG = [
    (["add", "a b"], 2, "the name must be"),
    (["add", "anonymous"], 2, "the name must be"),
    (["add", "x", "--role", "root"], 2, "--role must be one of"),
    (["add", "fixed"], 2, "security.keys already"),
    (["add", "taken"], 2, "called taken already"),
    (["add", "x", "--file", "no/such/place"], 1, "cannot be written"),
    (["add", "x", "--config", "none.yml"], 2, "none.yml"),
    (["revoke", "nobody"], 1, "no key in use"),
    (["list", "--config", "bare.yml"], 2, "security.keys_file is not set"),
    (["list", "--file", "bad.jsonl"], 2, "line 1 is no JSON object"),
    (["add", "x", "--file", "bad.jsonl"], 2, "line 1 is no JSON object"),
    (["revoke", "x", "--file", "bad.jsonl"], 2, "line 1 is no JSON object"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG)
def test_what_goes_wrong_is_one_sentence_and_an_exit_code(arguments: list[str], code: int, words: str) -> None:
    fleet("add", "taken")
    Path("bare.yml").write_text("queue: {max_size: 7}\n")
    Path("bad.jsonl").write_text("hunter2\n")
    before = Path(FILE).read_bytes()
    ended = fleet(*arguments)
    assert (ended.exit_code, ended.stdout) == (code, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("fleet: ")
    assert words in line
    assert "hunter2" not in line
    assert Path(FILE).read_bytes() == before


def test_a_file_can_be_named_without_any_configuration() -> None:
    Path("config.yml").write_text("nonsense: [\n")
    assert fleet("add", "ci", "--file", "mine.jsonl").exit_code == 0
    assert [each.name for each in key_file.read("mine.jsonl")] == ["ci"]


def test_check_reads_the_file_too() -> None:
    def check() -> Result:
        return CliRunner().invoke(main.app, ["check"])

    assert check().exit_code == 0
    fleet("add", "ci")
    assert check().exit_code == 0
    Path(FILE).write_text("hunter2\n")
    ended = check()
    assert ended.exit_code == 2
    assert "security.keys_file: keys.jsonl line 1 is no JSON object" in ended.stderr
    assert "hunter2" not in ended.output
