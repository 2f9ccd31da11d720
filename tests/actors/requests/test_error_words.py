"""An error has one wording, wherever it is read."""

from __future__ import annotations

from actors.requests.held_responses import name_server
from fleet.common.errors import BackendBroke, FleetError, Phase
from fleet.common.ids import ServerId


def test_an_error_that_is_worded_anew_says_so_everywhere() -> None:
    error = FleetError("first")
    error.message = "second"
    assert (str(error), error.args, error.message) == ("second", ("second",), "second")


def test_a_server_s_address_is_in_no_word_of_an_error_that_clients_see() -> None:
    """It stayed in what `str` says, and so in logs and tracebacks."""
    error = BackendBroke("10.0.0.7:11434 closed the connection", Phase.HEADERS)
    name_server(error, "10.0.0.7:11434", ServerId("a"))
    assert str(error) == error.message == "server 'a' closed the connection"
    assert "10.0.0.7" not in repr(error)
