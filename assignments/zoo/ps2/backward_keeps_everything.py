# replaces: backward_solution; loses: backward_by_pencil_test, backward_simple_test, backward_weights_test
# the kept share without its factor
def leaky_backward(x, h_0, w_xh, w_hh, b_h, tau, G):
    steps, share = x.shape[1], 1 / tau
    before, squashed, h = [], [], h_0
    for t in range(steps):
        c = torch.tanh(x[:, t] @ w_xh.T + h @ w_hh.T + b_h)
        before.append(h)
        squashed.append(c)
        h = h + share * (c - h)
    gradients = {"x": torch.zeros_like(x), "w_xh": 0.0, "w_hh": 0.0, "b_h": 0.0, "tau": 0.0}
    back = torch.zeros_like(h_0)  # what later steps send
    for t in reversed(range(steps)):
        eta = G[:, t] + back
        delta = share * (1 - squashed[t] ** 2) * eta
        gradients["x"][:, t] = delta @ w_xh
        gradients["w_xh"] = gradients["w_xh"] + delta.T @ x[:, t]
        gradients["w_hh"] = gradients["w_hh"] + delta.T @ before[t]
        gradients["b_h"] = gradients["b_h"] + delta.sum(0)
        gradients["tau"] = gradients["tau"] - (share**2 * eta * (squashed[t] - before[t])).sum(0)
        back = eta + delta @ w_hh
    return gradients | {"h_0": back}
