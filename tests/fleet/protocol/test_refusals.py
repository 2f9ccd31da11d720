"""What a refusal is about, and when two servers say the same."""

from __future__ import annotations

import pytest

from fleet.breakers.failure_classes import classify, convict
from fleet.breakers.outcomes import Refused, Signal, kind, retryable_elsewhere
from fleet.protocol.refusals import Ground, gist

GROUNDS: list[tuple[Refused, Ground]] = [
    (Refused(400, "model is required"), Ground.CLIENT),
    (Refused(400, "400 Bad Request", ours=False), Ground.DOUBT),
    (Refused(422, "unprocessable"), Ground.CLIENT),
    (Refused(422, "<html>", ours=False), Ground.DOUBT),
    (Refused(404, "model 'm' not found", missing=True), Ground.MODEL),
    (Refused(404, "model '' not found"), Ground.CLIENT),
    (Refused(404, "404 page not found", ours=False), Ground.ROUTE),
    (Refused(404, "<html>not here", ours=False), Ground.DOUBT),
    (Refused(401, "unauthorized"), Ground.STANDING),
    (Refused(403, "", ours=False), Ground.STANDING),
    (Refused(407, "", ours=False), Ground.STANDING),
    (Refused(408), Ground.BUSY),
    (Refused(425), Ground.BUSY),
    (Refused(429), Ground.BUSY),
    (Refused(413, "<html>", ours=False), Ground.SIZE),
    (Refused(414, "", ours=False), Ground.SIZE),
    (Refused(431, "", ours=False), Ground.SIZE),
    (Refused(499, "request canceled"), Ground.CLIENT),
    (Refused(405, "405 method not allowed", ours=False), Ground.DOUBT),
    (Refused(418, "I am a teapot"), Ground.DOUBT),
    (Refused(451, "<html>", ours=False), Ground.DOUBT),
    (Refused(502), Ground.GATEWAY),
    (Refused(504), Ground.GATEWAY),
    (Refused(511, "", ours=False), Ground.GATEWAY),
    (Refused(520, "<html>", ours=False), Ground.GATEWAY),
    (Refused(530, "<html>", ours=False), Ground.GATEWAY),
    (Refused(503, "down for maintenance"), Ground.GATEWAY),
    (Refused(503, "server busy, please try again.  maximum pending requests exceeded"), Ground.BUSY),
    (Refused(501, "not implemented"), Ground.DOUBT),
    (Refused(500, "model requires more system memory (5.3 GiB) than is available (4.4 GiB)"), Ground.MEMORY),
    (Refused(500, "model requires more memory than the GPU has"), Ground.MEMORY),
    (Refused(500, 'POST predict: Post "http://127.0.0.1:33015/completion": EOF'), Ground.CRASH),
    (Refused(500, "no slots available after 10 retries"), Ground.CRASH),
    (Refused(500, "unable to load model: /models/blobs/sha256-6a0746a1"), Ground.CRASH),
    (Refused(500, "llama runner process has terminated: signal: killed"), Ground.CRASH),
    (Refused(500, "CUDA error: out of memory"), Ground.CRASH),
    (Refused(200, "an error was encountered while running the model: unexpected EOF"), Ground.CRASH),
    (Refused(200, "something else"), Ground.DOUBT),
    (Refused(500, "something new"), Ground.DOUBT),
    (Refused(500, "<html>500</html>", ours=False), Ground.DOUBT),
    (Refused(500, 'option "num_ctx" must be of type integer'), Ground.CLIENT),
    (Refused(500, 'invalid format: "out of memory"; expected "json" or a valid JSON Schema object'), Ground.CLIENT),
    (Refused(500, "template: :1: llama runner process"), Ground.CLIENT),
    (Refused(500, "json: cannot unmarshal number into Go struct field"), Ground.CLIENT),
    (Refused(500, '"tinybert" does not support chat'), Ground.CLIENT),
    (Refused(500, "registry.ollama.ai/library/tiny:latest does not support tools"), Ground.CLIENT),
    (Refused(500, "this model does not support embeddings"), Ground.CLIENT),
    (Refused(500, "the GPU does not support this operation"), Ground.DOUBT),
    (Refused(500, "illegal base64 data at input byte 4"), Ground.CLIENT),
    (Refused(500, "time: invalid duration"), Ground.CLIENT),
]  # fmt: skip


@pytest.mark.parametrize(("end", "ground"), GROUNDS, ids=lambda value: str(value)[:60])
def test_what_a_refusal_is_about(end: Refused, ground: Ground) -> None:
    assert end.ground is ground
    assert retryable_elsewhere(end) is (ground is not Ground.CLIENT)


@pytest.mark.parametrize(
    ("ground", "alone", "witnessed"),
    [
        (Refused(500, "no slots available"), Signal.FAILURE, Signal.FAILURE),
        (Refused(502), Signal.FAILURE, Signal.FAILURE),
        (Refused(500, "model requires more system memory"), Signal.NEUTRAL, Signal.FAILURE),
        (Refused(500, "something new"), Signal.NEUTRAL, Signal.FAILURE),
        (Refused(401, "unauthorized"), Signal.NEUTRAL, Signal.FAILURE),
        (Refused(413, "", ours=False), Signal.NEUTRAL, Signal.SOFT_FAILURE),
        (Refused(429), Signal.NEUTRAL, Signal.NEUTRAL),
        (Refused(503, "server busy, please try again."), Signal.NEUTRAL, Signal.NEUTRAL),
        (Refused(404, "404 page not found", ours=False), Signal.NEUTRAL, Signal.NEUTRAL),
        (Refused(404, "model 'm' not found", missing=True), Signal.NEUTRAL, Signal.NEUTRAL),
        (Refused(400, "model is required"), Signal.NEUTRAL, Signal.NEUTRAL),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_the_breaker_learns_alone_and_when_another_server_answers(
    ground: Refused, alone: Signal, witnessed: Signal
) -> None:
    assert classify(ground) is alone
    assert convict(ground) is witnessed


@pytest.mark.parametrize(
    ("one", "two", "agree"),
    [
        (Refused(500, "odd thing at 10.0.0.1:8080"), Refused(500, "odd thing at 10.0.0.2:9"), True),
        (Refused(500, "took 3.5 s, request req_8f"), Refused(500, "took 12 s, request req_a1"), True),
        (Refused(500, 'Post "http://gpu-a/x": EOF predict'), Refused(500, 'Post "http://gpu-b/x": EOF predict'), True),
        (Refused(500, "host gpu-a.lan refused"), Refused(500, "host gpu-b.lan refused"), True),
        (Refused(500, "one thing"), Refused(500, "another thing"), False),
        (Refused(500, "one thing"), Refused(418, "one thing"), False),
        (Refused(413, "too large", ours=False), Refused(413, "too large", ours=False), True),
        (Refused(500, "runner has unexpectedly stopped"), Refused(500, "runner has unexpectedly stopped"), True),
        (Refused(503, "down"), Refused(503, "down"), False),
        (Refused(429, "slow down"), Refused(429, "slow down"), False),
        (Refused(401, "no"), Refused(401, "no"), False),
        (Refused(500, "requires more system memory (1)"), Refused(500, "requires more system memory (2)"), False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_two_that_say_the_same_of_a_request_agree_and_two_that_speak_of_themselves_do_not(
    one: Refused, two: Refused, agree: bool
) -> None:
    assert one.agrees(two) is two.agrees(one) is agree


def test_the_gist_of_a_text_is_bounded() -> None:
    assert len(gist("x" * 100_000)) <= 500
    assert gist("") == ""


def test_an_error_inside_a_200_is_a_stream_error() -> None:
    assert kind(Refused(200, "x")) == "stream_error"
