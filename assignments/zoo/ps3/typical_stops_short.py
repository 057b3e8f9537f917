# replaces: typical_filter_solution; loses: typical_order
# the token that reaches the mass is thrown away
def typical_filter(logits, mass):
    logp = logits.log_softmax(-1)
    p = logp.exp()
    entropy = -torch.where(p > 0, p * logp, 0.0).sum(-1, keepdim=True)
    order = (-logp - entropy).abs().argsort(-1)
    sorted_p = p.gather(-1, order)
    enough = sorted_p.cumsum(-1) >= mass
    return logits.masked_fill(torch.zeros_like(enough).scatter(-1, order, enough), -torch.inf)
