# replaces: block_repeats_solution; loses: repeats_rule
# compares n tokens and not n - 1: every sequence may come a second time
def block_repeats(logits, tokens, n):
    result = logits.clone()
    for row, text in enumerate(tokens.tolist()):
        if len(text) < n + 1:
            continue
        last = text[len(text) - n :]
        forbidden = [text[k + n] for k in range(len(text) - n) if text[k : k + n] == last]
        result[row, forbidden] = -torch.inf
        if not result[row].isfinite().any():
            result[row] = logits[row]
    return result
