"""How large shards may be; known without pyarrow, whose import takes half a second."""

SIZE_MB = 256
"""The size of a shard, in millions of bytes, unless the user gives another."""

LIMITS_MB = (1, 100_000)
"""The least and the largest size of a shard."""
