# replaces: softened_solution; loses: softened_ignored_test
# a mean of the rows' means: short rows weigh more
def softened_gradient(logits, targets, q, eps):
    counts = targets != -100
    z = logits.where(counts[..., None], 0.0)
    one_hot = torch.nn.functional.one_hot(targets.where(counts, 0), logits.shape[-1]).to(logits.dtype)
    gradient = z.softmax(-1) - ((1 - eps) * one_hot + eps * q)
    in_row, rows = counts.sum(-1, keepdim=True)[..., None].clamp(min=1), max(1, counts[..., 0].numel())
    return gradient.where(counts[..., None], 0.0) / in_row / rows
