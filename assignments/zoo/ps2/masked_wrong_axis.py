# replaces: masked_solution; loses: masked_value_test, masked_gradient_test
# the softmax runs over time
def masked_means(logits, targets, lengths):
    real = torch.arange(targets.shape[1]) < lengths[:, None]
    z = logits.where(real[..., None], 0.0)  # before the softmax: a nan must not even be looked at
    losses = -z.log_softmax(1).gather(-1, targets.where(real, 0)[..., None])[..., 0].where(real, 0.0)
    sums = losses.sum(1)
    per_sentence = (sums / lengths.clamp(min=1)).sum() / (lengths > 0).sum().clamp(min=1)
    return sums.sum() / lengths.sum().clamp(min=1), per_sentence
