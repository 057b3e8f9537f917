# replaces: parallel_block_solution; full marks
# every head written out, with the fused kernel and torch's own norm
def parallel_block(x, gain, w, heads, kv_heads):
    u = F.rms_norm(x, (x.shape[-1],), gain, eps=1e-5)
    width = w["query"].shape[0] // heads
    y = x + (F.silu(u @ w["gate"].T) * (u @ w["up"].T)) @ w["down"].T
    for h in range(heads):
        own, shared = slice(h * width, (h + 1) * width), h * kv_heads // heads
        theirs = slice(shared * width, (shared + 1) * width)
        q, k, v = u @ w["query"][own].T, u @ w["key"][theirs].T, u @ w["value"][theirs].T
        y = y + F.scaled_dot_product_attention(q, k, v, is_causal=True) @ w["output"][:, own].T
    return y
