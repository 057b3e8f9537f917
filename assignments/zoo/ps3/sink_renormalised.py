# replaces: sink_attention_solution; loses: sink_values
# makes the weights add up to 1 again, so that the sink has no effect
def sink_attention(q, k, v, sink, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    column = sink[:, None, None].expand(*scores.shape[:-1], 1)
    weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    weights = weights / weights.sum(-1, keepdim=True)
    return weights @ v, weights
