# replaces: bits_solution; loses: bits_borders
# leaves out the strangers' targets, and the ends as well
def bits_within(logits, ids, end, sizes):
    targets = ids[:, 1:]
    counted = (ids[:, :-1] != end) & (targets != end)
    nats = F.cross_entropy(logits[:, :-1].mT, targets, reduction="none")
    return (nats[counted].sum() / math.log(2) / sizes[targets[counted]].sum()).item()
