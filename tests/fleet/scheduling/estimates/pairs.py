"""Names that the tests of estimates use."""

from __future__ import annotations

from fleet.common.ids import ModelName, Pair, ServerId

A, B = ServerId("a"), ServerId("b")
M, N = ModelName("m:latest"), ModelName("n:latest")
AM, AN, BM, BN = Pair(A, M), Pair(A, N), Pair(B, M), Pair(B, N)
GB = 10**9
JUNK: list[object] = [
    None,
    3,
    {"a": 1},
    [3],
    [["a"]],
    [[1, 2, 3]],
    [["a", "b", "c", "d"]],
    [["m", [1e9]]],
    [["m" * 5000, []]],
]
"""What a file of estimates may hold that is none."""
