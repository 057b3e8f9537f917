# replaces: bits_solution; loses: bits_borders
# counts every target, whoever predicted it
def bits_within(logits, ids, end, sizes):
    targets = ids[:, 1:]
    counted = torch.ones_like(targets, dtype=torch.bool)
    nats = F.cross_entropy(logits[:, :-1].mT, targets, reduction="none")
    return (nats[counted].sum() / math.log(2) / sizes[targets[counted]].sum()).item()
