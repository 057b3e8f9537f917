# replaces: sink_attention_solution; loses: sink_stable
# the formula as it stands, with exponentials that overflow
def sink_attention(q, k, v, sink, mask=None):
    e = (q @ k.mT / q.shape[-1] ** 0.5).exp()
    if mask is not None:
        e = e * mask
    weights = e / (e.sum(-1, keepdim=True) + sink.exp()[:, None, None])
    return weights @ v, weights
