# replaces: step_solution; loses: step_value_test, step_limits_test
# keeps the share 1/tau instead of 1 - 1/tau
def leaky_step(x, h, w_xh, w_hh, b_h, tau):
    target = torch.tanh(x @ w_xh.T + h @ w_hh.T + b_h)
    return target + (h - target) / tau
