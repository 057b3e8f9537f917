# replaces: reach_solution; loses: reach_values_test, reach_touch_test
# never moves the state on: every Jacobian is taken at the start
reach, touch = {}, {}
for tau in time_constants:
    share = torch.full((16,), float(tau), dtype=torch.float64)
    h, J, norms = h_0, torch.eye(16, dtype=torch.float64), []
    for x_t in x:
        step_by_h, step_by_x = torch.autograd.functional.jacobian(
            lambda h, x_t, share=share: leaky_step(x_t[None], h[None], w_xh, w_hh, b_h, share)[0], (h, x_t)
        )
        J = step_by_h @ J
        norms.append(torch.linalg.matrix_norm(J, 2).item())
    reach[tau], touch[tau] = norms, torch.linalg.matrix_norm(step_by_x, 2).item()
