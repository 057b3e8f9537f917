# replaces: sink_attention_solution; loses: sink_mask
# hides keys after the softmax: what they had is lost instead of shared out
def sink_attention(q, k, v, sink, mask=None):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    column = sink[:, None, None].expand(*scores.shape[:-1], 1)
    weights = torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    if mask is not None:
        weights = weights * mask
    return weights @ v, weights
