# replaces: step_solution; loses: step_value_test
# mixes before the squash instead of after it
def leaky_step(x, h, w_xh, w_hh, b_h, tau):
    a = x @ w_xh.T + h @ w_hh.T + b_h
    return torch.tanh(h + (a - h) / tau)
