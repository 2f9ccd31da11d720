"""How the cost of foreign input grows with its size: the worst input known for each reader, and its time for that.

`python -m bench.growth` prints the table; `tests/bench/test_growth.py` checks every row of it.
"""
