# replaces: step_solution; full marks
# right: chapter 5's step, and a linear interpolation
def leaky_step(x, h, w_xh, w_hh, b_h, tau):
    (simple,) = rnn_step(x, h, w_xh, w_hh, b_h)
    return torch.lerp(h, simple, 1 / tau)
