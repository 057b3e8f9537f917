# replaces: sink_attention_solution; loses: sink_values
# adds z itself below the line, where its exponential belongs
def sink_attention(q, k, v, sink, mask=None):
    e = (q @ k.mT / q.shape[-1] ** 0.5).exp()
    if mask is not None:
        e = e * mask
    weights = e / (e.sum(-1, keepdim=True) + sink[:, None, None])
    return weights @ v, weights
