# replaces: bits_solution; loses: bits_one_document
# no shift: each place is asked for the token that it has just read
def bits_within(logits, ids, end, sizes):
    targets = ids
    counted = torch.cat([ids[:, :1] == -1, ids[:, :-1] != end], 1)
    nats = F.cross_entropy(logits.mT, targets, reduction="none")
    return (nats[counted].sum() / math.log(2) / sizes[targets[counted]].sum()).item()
