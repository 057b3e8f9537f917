# replaces: block_repeats_solution; loses: repeats_edges
# stops one place too early: what the last token has completed is missed
def block_repeats(logits, tokens, n):
    result = logits.clone()
    for row, text in enumerate(tokens.tolist()):
        if len(text) < n:
            continue
        last = text[len(text) - n + 1 :]
        forbidden = [text[k + n - 1] for k in range(len(text) - n) if text[k : k + n - 1] == last]
        result[row, forbidden] = -torch.inf
        if not result[row].isfinite().any():
            result[row] = logits[row]
    return result
