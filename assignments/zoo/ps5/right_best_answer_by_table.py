# replaces: best_answer_solution; full marks
# A table of all pairs of tokens, cut to a band.
def best_answer(first, last, tokens, longest, none):
    """Mask the table, subtract the largest score, and group what is left by text."""
    n = len(tokens)
    table = (first[:, None] + last[None, :]).double()
    band = torch.ones(n, n).triu().tril(longest - 1).bool()
    top = max(none, *table[band].tolist()) if n else none
    weight = torch.where(band, torch.exp(table - top), torch.zeros_like(table))
    nothing = math.exp(none - top)
    Z = weight.sum().item() + nothing
    answers = {}
    for i, j in band.nonzero().tolist():
        text = " ".join(tokens[i : j + 1])
        answers.setdefault(text.lower(), []).append((weight[i, j].item(), -i, text))
    best, spelled = nothing, ""
    for spans in answers.values():
        mass = sum(span[0] for span in spans)
        if mass > best:
            best, spelled = mass, max(spans)[2]
    return spelled, best / Z
