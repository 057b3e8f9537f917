# replaces: softened_solution; loses: softened_ignored_test
# 0 times nan is nan
def softened_gradient(logits, targets, q, eps):
    counts = targets != -100
    z = logits
    one_hot = torch.nn.functional.one_hot(targets.where(counts, 0), logits.shape[-1]).to(logits.dtype)
    gradient = z.softmax(-1) - ((1 - eps) * one_hot + eps * q)
    return gradient * counts[..., None] / counts.sum().clamp(min=1)
