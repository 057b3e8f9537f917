# replaces: typical_filter_solution; loses: typical_removed
# 0 times minus infinity is nan, and so is the entropy
def typical_filter(logits, mass):
    logp = logits.log_softmax(-1)
    p = logp.exp()
    entropy = -(p * logp).sum(-1, keepdim=True)
    order = (-logp - entropy).abs().argsort(-1)
    sorted_p = p.gather(-1, order)
    enough = sorted_p.cumsum(-1) - sorted_p >= mass
    return logits.masked_fill(torch.zeros_like(enough).scatter(-1, order, enough), -torch.inf)
