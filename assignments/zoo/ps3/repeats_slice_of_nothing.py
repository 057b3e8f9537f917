# replaces: block_repeats_solution; loses: repeats_edges
# for n = 1, text[-0:] is the whole text
def block_repeats(logits, tokens, n):
    result = logits.clone()
    for row, text in enumerate(tokens.tolist()):
        if len(text) < n:
            continue
        last = text[-(n - 1) :]
        forbidden = [text[k + n - 1] for k in range(len(text) - n + 1) if text[k : k + n - 1] == last]
        result[row, forbidden] = -torch.inf
        if not result[row].isfinite().any():
            result[row] = logits[row]
    return result
