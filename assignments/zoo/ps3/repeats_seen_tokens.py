# replaces: block_repeats_solution; loses: repeats_rule
# forbids whatever has occurred, for every n
def block_repeats(logits, tokens, n):
    result = logits.clone()
    if tokens.shape[1] >= n:
        for row, text in enumerate(tokens.tolist()):
            result[row, text] = -torch.inf
            if not result[row].isfinite().any():
                result[row] = logits[row]
    return result
