# replaces: block_repeats_solution; loses: repeats_edges
# writes into the logits of the caller
def block_repeats(logits, tokens, n):
    result = logits
    for row, text in enumerate(tokens.tolist()):
        if len(text) < n:
            continue
        last = text[len(text) - n + 1 :]
        forbidden = [text[k + n - 1] for k in range(len(text) - n + 1) if text[k : k + n - 1] == last]
        result[row, forbidden] = -torch.inf
        if not result[row].isfinite().any():
            result[row] = 0.0
    return result
