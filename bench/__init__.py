"""The benchmark: the fleet against other proxies, every figure a ratio from one run. See README.md."""
