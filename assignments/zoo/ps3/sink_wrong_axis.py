# replaces: sink_attention_solution; loses: sink_values
# normalises over the queries: the shapes fit all the same
def sink_attention(q, k, v, sink, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    row = sink[:, None, None].expand(*scores.shape[:-2], 1, scores.shape[-1])
    weights = torch.cat([scores, row], -2).softmax(-2)[..., :-1, :]
    return weights @ v, weights
