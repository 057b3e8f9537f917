# replaces: newton_solution; loses: newton_by_hand, newton_finds
# a fixed rate instead of the curvature
def newton_step(beta, logits, truth):
    p = (beta * logits).softmax(-1)
    slope = ((p * logits).sum(-1) - logits.gather(1, truth[:, None])[:, 0]).mean()
    step = beta - 0.1 * slope.item()
    return step if step > 0 else beta / 2
