# replaces: newton_solution; loses: newton_guard
# a floor where β should be halved
def newton_step(beta, logits, truth):
    p = (beta * logits).softmax(-1)
    mean = (p * logits).sum(-1)
    slope = (mean - logits.gather(1, truth[:, None])[:, 0]).mean()
    bend = (p * (logits - mean[:, None]).square()).sum(-1).mean()
    step = beta - (slope / bend).item()
    return max(step, 1e-3)
