# replaces: typical_filter_solution; loses: typical_order
# the most probable tokens, which is top p
def typical_filter(logits, mass):
    p, order = logits.softmax(-1).sort(-1, descending=True)
    enough = p.cumsum(-1) - p >= mass
    return logits.masked_fill(torch.zeros_like(enough).scatter(-1, order, enough), -torch.inf)
