# replaces: step_solution; loses: step_value_test, step_limits_test
# the first unit's time constant for all
def leaky_step(x, h, w_xh, w_hh, b_h, tau):
    target = torch.tanh(x @ w_xh.T + h @ w_hh.T + b_h)
    return h + (target - h) / tau[0]
