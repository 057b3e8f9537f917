# replaces: bits_solution; loses: bits_one_document, bits_borders
# a mean over tokens, which no two tokenizers share
def bits_within(logits, ids, end, sizes):
    targets = ids[:, 1:]
    counted = ids[:, :-1] != end
    nats = F.cross_entropy(logits[:, :-1].mT, targets, reduction="none")
    return (nats[counted].mean() / math.log(2)).item()
