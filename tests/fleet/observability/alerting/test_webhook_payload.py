"""What the webhook sends, and how it proves that."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest

from fleet.observability.alerting.alert import Ack, Alert
from fleet.observability.alerting.alert_manager import TEST
from fleet.observability.alerting.webhook_payload import (
    LONGEST_PAUSE,
    Delivery,
    Told,
    headers,
    hopeless,
    pause,
    signature,
)

ALERT = Alert("a-1", 1, "FleetServerDown", "warning", "firing", 0.0, 0.0, "down")
OVER = replace(ALERT, state="resolved")


def test_a_beginning_and_an_end_are_told_once_each() -> None:
    told = Told()
    changes = [ALERT, replace(ALERT, ack=Ack("ana", 1.0)), ALERT, OVER, OVER]
    assert [told.event(each, "warning") for each in changes] == ["alert.firing", None, None, "alert.resolved", None]


def test_what_is_not_serious_enough_is_not_told_nor_is_its_end() -> None:
    told = Told()
    assert [told.event(each, "critical") for each in (ALERT, OVER)] == [None, None]
    assert told.event(replace(ALERT, severity="critical"), "critical") == "alert.firing"
    assert told.event(replace(ALERT, id="a-2"), "info") == "alert.firing"


def test_a_silenced_alert_is_told_when_its_silence_ends() -> None:
    told, quiet = Told(), replace(ALERT, silenced_until=9.0)
    assert [told.event(each, "warning") for each in (quiet, ALERT, quiet, OVER)] == [
        None,
        "alert.firing",
        None,
        "alert.resolved",
    ]
    assert [told.event(each, "warning") for each in (quiet, OVER)] == [None, None]


def test_a_test_is_told_whatever_its_severity() -> None:
    test = replace(ALERT, rule=TEST, severity="info")
    told = Told()
    assert [told.event(each, "critical") for each in (test, replace(test, state="resolved"))] == ["alert.test", None]


def test_the_signature_is_over_timestamp_and_body() -> None:
    expected = hmac.new(b"key", b'1700000000.{"a":1}', hashlib.sha256).hexdigest()
    assert signature("key", "1700000000", b'{"a":1}') == expected
    delivery = Delivery("d-1", "alert.firing", {"a": 1})
    said = headers(delivery, "1700000000", b'{"a":1}', "key")
    assert said["X-Fleet-Signature"] == expected
    assert (said["X-Fleet-Event"], said["X-Fleet-Delivery"]) == ("alert.firing", "d-1")
    assert "X-Fleet-Signature" not in headers(delivery, "1700000000", b"", None)


def test_pauses_grow_up_to_a_minute() -> None:
    assert [pause(n, 0.5) for n in (1, 2, 3, 20)] == [1.0, 2.0, 4.0, LONGEST_PAUSE]
    assert (pause(1, 0.0), pause(1, 1.0)) == (0.75, 1.25)


@pytest.mark.parametrize(
    ("status", "final"), [(301, True), (400, True), (404, True), (408, False), (429, False), (500, False), (503, False)]
)
def test_some_answers_will_not_change(status: int, final: bool) -> None:
    assert hopeless(status) is final
