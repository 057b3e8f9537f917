# replaces: sink_attention_solution; loses: sink_values
# takes the first head's sink for every head
def sink_attention(q, k, v, sink, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    column = sink[0].expand(*scores.shape[:-1], 1)
    weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    return weights @ v, weights
