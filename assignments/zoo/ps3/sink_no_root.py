# replaces: sink_attention_solution; loses: sink_values
# forgets to divide by the root of d_k
def sink_attention(q, k, v, sink, mask=None):
    scores = q @ k.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    column = sink[:, None, None].expand(*scores.shape[:-1], 1)
    weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    return weights @ v, weights
