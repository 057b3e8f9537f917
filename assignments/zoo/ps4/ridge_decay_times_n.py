# replaces: ridge_solution; loses: ridge_fit
# the penalty of a mean loss, not of a sum
def ridge(X, Y, decay):
    middle = X - X.mean(0)
    inverse_rows = torch.linalg.solve(
        middle.T @ middle + len(X) * decay * torch.eye(X.shape[1], dtype=X.dtype), middle.T
    )
    W = inverse_rows @ (Y - Y.mean(0))
    b = Y.mean(0) - X.mean(0) @ W
    h = 1 / len(X) + (middle * inverse_rows.T).sum(1)
    return W, b, Y - (Y - X @ W - b) / (1 - h)[:, None]
