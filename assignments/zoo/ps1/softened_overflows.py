# replaces: softened_solution; loses: softened_check_test
# exponentials without subtracting the largest logit
def softened_gradient(logits, targets, q, eps):
    counts = targets != -100
    z = logits.where(counts[..., None], 0.0)
    one_hot = torch.nn.functional.one_hot(targets.where(counts, 0), logits.shape[-1]).to(logits.dtype)
    gradient = (z.exp() / z.exp().sum(-1, keepdim=True)) - ((1 - eps) * one_hot + eps * q)
    return gradient.where(counts[..., None], 0.0) / counts.sum().clamp(min=1)
