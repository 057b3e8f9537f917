# replaces: grouped_solution; loses: grouped_weights
# divides by the number of all items, however many were drawn
def grouped_differences(right_a, right_b, group, draws):
    difference = right_a.double() - right_b.double()
    sums = torch.stack([difference[group == k].sum() for k in range(int(group.max()) + 1)])
    return sums[draws].sum(1) / len(group)
