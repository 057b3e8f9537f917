# replaces: parallel_block_solution; loses: block_look, block_whole
# looks into the future
def parallel_block(x, gain, w, heads, kv_heads):
    u = gain * x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    q = F.linear(u, w["query"]).unflatten(-1, (heads, -1)).transpose(1, 2)
    k, v = (F.linear(u, w[name]).unflatten(-1, (kv_heads, -1)).transpose(1, 2) for name in ("key", "value"))
    k, v = (part.repeat_interleave(heads // kv_heads, 1) for part in (k, v))
    mixed, _ = attention(q, k, v)
    around = F.linear(mixed.transpose(1, 2).flatten(2), w["output"])
    return x + around + F.linear(F.silu(F.linear(u, w["gate"])) * F.linear(u, w["up"]), w["down"])
