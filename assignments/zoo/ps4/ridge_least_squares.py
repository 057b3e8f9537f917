# replaces: ridge_solution; loses: ridge_fit
# least squares without a penalty
def ridge(X, Y, decay):
    middle = X - X.mean(0)
    inverse_rows = torch.linalg.pinv(middle)
    W = inverse_rows @ (Y - Y.mean(0))
    b = Y.mean(0) - X.mean(0) @ W
    h = 1 / len(X) + (middle * inverse_rows.T).sum(1)
    return W, b, Y - (Y - X @ W - b) / (1 - h).clamp(min=1e-9)[:, None]
