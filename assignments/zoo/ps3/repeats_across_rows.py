# replaces: block_repeats_solution; loses: repeats_rule
# one text's sequences are forbidden in all of them
def block_repeats(logits, tokens, n):
    result, texts = logits.clone(), tokens.tolist()
    seen = {tuple(text[k : k + n]) for text in texts for k in range(len(text) - n + 1)}
    for row, text in enumerate(texts):
        if len(text) < n - 1:
            continue
        result[row, [w for w in range(logits.shape[1]) if (*text[len(text) - n + 1 :], w) in seen]] = -torch.inf
        if not result[row].isfinite().any():
            result[row] = logits[row]
    return result
