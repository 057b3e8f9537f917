# replaces: grouped_solution; loses: grouped_weights
# each group counts the same, whatever its size
def grouped_differences(right_a, right_b, group, draws):
    difference = right_a.double() - right_b.double()
    means = torch.stack([difference[group == k].mean() for k in range(int(group.max()) + 1)])
    return means[draws].mean(1)
