# replaces: sink_attention_solution; loses: sink_gradients
# reads the sinks as plain numbers, so that they can never learn
def sink_attention(q, k, v, sink, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    column = torch.tensor(sink.tolist(), dtype=q.dtype)[:, None, None].expand(*scores.shape[:-1], 1)
    weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    return weights @ v, weights
