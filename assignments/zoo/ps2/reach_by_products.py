# replaces: reach_solution; full marks
# right: the product of Jacobians by pencil, and singular values
def measure(tau):
    h, product, norms = h_0, torch.eye(len(h_0), dtype=h_0.dtype), []
    for row in x:
        slope = 1 - torch.tanh(w_hh @ h + w_xh @ row + b_h) ** 2
        product = torch.diag(slope / tau) @ w_hh @ product + (1 - 1 / tau) * product
        h = leaky_step(row[None], h[None], w_xh, w_hh, b_h, torch.full_like(h, tau))[0]
        norms.append(float(torch.linalg.svdvals(product)[0]))
    return norms, float(torch.linalg.svdvals(torch.diag(slope / tau) @ w_xh)[0])


reach = {tau: measure(tau)[0] for tau in time_constants}
touch = {tau: measure(tau)[1] for tau in time_constants}
