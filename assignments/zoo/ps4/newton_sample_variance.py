# replaces: newton_solution; loses: newton_by_hand
# the plain variance of the scores, without their probabilities
def newton_step(beta, logits, truth):
    p = (beta * logits).softmax(-1)
    mean = (p * logits).sum(-1)
    slope = (mean - logits.gather(1, truth[:, None])[:, 0]).mean()
    bend = logits.var(-1).mean()
    step = beta - (slope / bend).item()
    return step if step > 0 else beta / 2
