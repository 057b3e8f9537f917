# replaces: sink_attention_solution; full marks
# by the logarithm of the denominator, one head at a time
def sink_attention(q, k, v, sink, mask=None):
    batch, heads, queries, width = q.shape
    full = None if mask is None else mask.expand(batch, heads, queries, k.shape[2])
    all_weights = []
    for h in range(heads):
        s = torch.einsum("bqd,bkd->bqk", q[:, h], k[:, h]) / math.sqrt(width)
        if full is not None:
            s = torch.where(full[:, h], s, torch.tensor(-torch.inf, dtype=s.dtype))
        below = torch.logaddexp(s.logsumexp(-1), sink[h])
        all_weights.append((s - below[..., None]).exp())
    weights = torch.stack(all_weights, 1)
    return torch.einsum("bhqk,bhkd->bhqd", weights, v), weights
