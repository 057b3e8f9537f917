# replaces: backward_solution; full marks
# right: all deltas in one tensor, sums by einsum
def leaky_backward(x, h_0, w_xh, w_hh, b_h, tau, G):
    seq = x.shape[1]
    lam = tau.reciprocal()
    h = [h_0]
    for t in range(seq):
        h.append((1 - lam) * h[-1] + lam * (h[-1] @ w_hh.T + x[:, t] @ w_xh.T + b_h).tanh())
    h_all = torch.stack(h, dim=1)
    h_prev = h_all[:, :-1]
    c = h_prev + (h_all[:, 1:] - h_prev) * tau  # solve (P2.1) for tanh(a)
    delta, eta = torch.zeros_like(h_prev), torch.zeros_like(h_prev)
    later = torch.zeros_like(h_0)
    for t in range(seq - 1, -1, -1):
        eta[:, t] = G[:, t] + later
        delta[:, t] = lam * (1 - c[:, t].square()) * eta[:, t]
        later = eta[:, t] * (1 - lam) + torch.einsum("bi,ij->bj", delta[:, t], w_hh)
    return {
        "x": torch.einsum("bti,ij->btj", delta, w_xh),
        "h_0": later,
        "w_xh": torch.einsum("bti,btj->ij", delta, x),
        "w_hh": torch.einsum("bti,btj->ij", delta, h_prev),
        "b_h": delta.sum((0, 1)),
        "tau": -(eta * (c - h_prev)).sum((0, 1)) * lam.square(),
    }
